"""The order in which a head is drawn: what hangs behind, then face, features, ears, hair and hat."""

from __future__ import annotations

from referencenet.paperdoll.ball import RX, Head, face_path
from referencenet.paperdoll.canvas import Canvas
from referencenet.paperdoll.face import draw_beard, draw_cheeks, draw_ears, draw_features, draw_glasses
from referencenet.paperdoll.hair import draw_hair, draw_hat, draw_knots, draw_long_hair, draw_stubble
from referencenet.paperdoll.palette import SKIN


def draw_behind(canvas: Canvas, head: Head) -> None:
    """Draw what hangs behind the body of somebody who faces the viewer: long hair, tail, bun."""
    if head.away < 0.5:
        draw_long_hair(canvas, head)
    draw_knots(canvas, head, front=False)


def draw_head(canvas: Canvas, head: Head) -> None:
    """Draw the head itself: ears, face, features, hair and hat."""
    skin = SKIN[head.character.skin]
    draw_ears(canvas, head, skin, front=False)
    path = face_path(head.character.face)
    canvas.shape(path, skin, "face", "head", fill=canvas.shade(skin, -RX, RX, 0.8))
    canvas.group(canvas.clip(path))
    if head.character.hair_style == "mohawk":
        draw_stubble(canvas, head)
    draw_cheeks(canvas, head, skin)
    draw_beard(canvas, head)
    draw_features(canvas, head, skin)
    canvas.end()
    if head.character.glasses:
        draw_glasses(canvas, head)
    draw_ears(canvas, head, skin, front=True)
    if head.away >= 0.5:
        draw_long_hair(canvas, head)
    draw_hair(canvas, head)
    draw_hat(canvas, head)
    draw_knots(canvas, head, front=True)
