"""What try-on needs: the garment alone, laid flat on white, and the person without a trace of it."""

from __future__ import annotations

import math

import numpy as np

from referencenet.paperdoll.canvas import Canvas, rasterize
from referencenet.paperdoll.character import Character
from referencenet.paperdoll.figure import Figure
from referencenet.paperdoll.garments import draw_hips, draw_sleeve, draw_trunk
from referencenet.paperdoll.maps import HEAD, PARTS, grown, label_map, part_mask, segmentation
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.render import Size, picture_size, render
from referencenet.paperdoll.scene import Scene

GREY = 128
_KEPT = (*HEAD, "right hand", "left hand", "lower garment", "right leg", "left leg", "right shoe", "left shoe")
_WORN = ("upper garment", "right arm", "left arm", "neck")


def _flat_canvas(character: Character, size: Size) -> Canvas:
    width, height = picture_size(size)
    spread = (52.0, 0.0, 40.0, 0.0)
    legs = (4.0, 0.0, 3.0, 0.0)
    pose = Pose(right_arm=spread, left_arm=spread, right_leg=legs, left_leg=legs)
    figure = Figure.of(Scene(character=character, pose=pose))
    canvas = Canvas(annotate=True)
    top = figure.at("neck")[1] - 9
    wrist = figure.at("left wrist")
    reach = wrist[0] + 4 if character.upper in ("sweater", "hoodie", "jacket") else figure.at("left elbow")[0] + 3
    low = figure.at("left knee")[1] + 3 if character.lower == "dress" else figure.at("hip")[1] + 7
    low = max(low, wrist[1] + 4) if character.upper in ("sweater", "hoodie", "jacket") else low
    scale = 0.92 * min(width / (2 * reach), height / (low - top))
    canvas.group(
        f'transform="translate({width / 2:.3f} {height / 2:.3f}) scale({scale:.5f}) '
        f'translate(0 {-(top + low) / 2:.3f})"'
    )
    if character.lower == "dress":
        draw_hips(canvas, figure)
    draw_trunk(canvas, figure)
    for side in ("right", "left"):
        draw_sleeve(canvas, figure, side)
    canvas.end()
    return canvas


def flat_lay(character: Character, size: Size = 64) -> np.ndarray:
    """Draw the upper garment (or the dress) of a character alone on white; (height, width, 3) uint8."""
    width, height = picture_size(size)
    body = f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(_flat_canvas(character, size).painted)}'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
    return rasterize(f"{head}{body}</svg>", width, height)


def flat_lay_mask(character: Character, size: Size = 64) -> np.ndarray:
    """Say where `flat_lay` shows the garment; (height, width) bool."""
    return label_map(_flat_canvas(character, size), PARTS, size) > 0


def agnostic_mask(scene: Scene, size: Size = 64) -> np.ndarray:
    """Say what must be hidden so that the garment cannot be guessed.

    Garment, arms and neck, grown by a thirtieth of the picture so that no edge tells a cut or a sleeve; the head, the
    hands and everything from the hips down (and under a dress, the legs) stay.

    Returns:
        (height, width) bool.
    """
    parts = segmentation(scene, size)
    hidden = grown(part_mask(parts, *_WORN), max(1, math.ceil(min(picture_size(size)) / 30)))
    return hidden & ~part_mask(parts, *_KEPT)


def agnostic(scene: Scene, size: Size = 64) -> np.ndarray:
    """Draw a scene with the garment, the arms and the neck under grey; (height, width, 3) uint8."""
    picture = render(scene, size).copy()
    picture[agnostic_mask(scene, size)] = GREY
    return picture
