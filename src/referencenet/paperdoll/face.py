"""Faces: eyes, brows, nose, mouth, ears, beards and glasses on the ball of the head."""

from __future__ import annotations

from referencenet.paperdoll.ball import RY, Head, ellipse, eye_size
from referencenet.paperdoll.canvas import Canvas, Point, smooth
from referencenet.paperdoll.palette import EYES, INK, mix, outline, shadow


def draw_ears(canvas: Canvas, head: Head, skin: str, *, front: bool) -> None:
    """Draw the ears that lie before (`front`) or behind the head; long hair covers them."""
    if head.character.hair_style in ("long", "bob", "curly"):
        return
    for side, name in ((-1, "right ear"), (1, "left ear")):
        x, y, z = head.ball.at(side * 88, 2.5, 1.04)
        if (z > 0.12) is front:
            d = ellipse(x, y, 3.0, 3.7)
            canvas.shape(d, skin, name, "head")
            canvas.paint(f'<path d="{ellipse(x, y, 1.3, 2.0)}" fill="{shadow(skin)}"/>')


def draw_cheeks(canvas: Canvas, head: Head, skin: str) -> None:
    """Draw the blush of the cheeks."""
    for side in (-1, 1):
        x, y, z = head.ball.at(side * 44, 8.6)
        if z > 0.15:
            tone = mix(skin, "#ff4d5e", 0.3)
            canvas.paint(f'<ellipse cx="{x:.2f}" cy="{y:.2f}" rx="{3.4 * z:.2f}" ry="2" fill="{tone}" opacity="0.75"/>')


def draw_beard(canvas: Canvas, head: Head) -> None:
    """Draw the beard, clipped to the face by the caller."""
    if not head.character.beard or head.away > 0.25:
        return
    line = [head.ball.at(lon, height)[:2] for lon, height in _beard_edge(head)]
    d = smooth(line) + f"L{line[-1][0]:.2f} {RY + 9}L{line[0][0]:.2f} {RY + 9}Z"
    canvas.paint(f'<path d="{d}" fill="{head.hair}" stroke="{outline(head.hair)}" stroke-width="1.2"/>')
    canvas.label("beard", "head", f'<path d="{d}" fill="{{0}}"/>')


def _beard_edge(head: Head) -> list[Point]:
    edge = [(-84, -1.0), (-70, 5.0), (-54, 10.0), (-26, 8.4), (0, 7.4), (26, 8.4), (54, 10.0), (70, 5.0), (84, -1.0)]
    return [(lon, height) for lon, height in edge if abs(lon + head.ball.yaw) <= 96]


def draw_features(canvas: Canvas, head: Head, skin: str) -> None:
    """Draw eyes, nose, mouth and brows."""
    for side, name in ((-1, "right eye"), (1, "left eye")):
        _eye(canvas, head, side, name)
    x, y, z = head.ball.at(0, 5.6, 1.05)
    if z > 0:
        canvas.paint(
            f'<path d="M{x - 1.1 * z:.2f} {y:.2f}q{1.1 * z:.2f} 1.2 {2.2 * z:.2f} 0" fill="none" '
            f'stroke="{mix(skin, INK, 0.45)}" stroke-width="1" stroke-linecap="round"/>'
        )
        canvas.label("nose", "head", f'<path d="{ellipse(x, y, 1.6, 1.3)}" fill="{{0}}"/>')
    draw_mouth(canvas, head, skin)
    for side in (-1, 1):
        _brow(canvas, head, side)


def _eye(canvas: Canvas, head: Head, side: int, name: str) -> None:
    x, y, z = head.ball.at(side * 25, 1.6)
    if z < 0.12:
        return
    face = head.expression
    wide, tall = eye_size(z, face.eyes)
    if tall == 0:
        d = f"M{x - wide:.2f} {y + 0.6:.2f}q{wide:.2f} 2.4 {2 * wide:.2f} 0"
        canvas.paint(f'<path d="{d}" fill="none" stroke="{INK}" stroke-width="1.7" stroke-linecap="round"/>')
        line = f'<path d="{d}" fill="none" stroke="{{0}}" stroke-width="1.7" stroke-linecap="round"/>'
        canvas.label(name, "head", line)
        return
    d = ellipse(x, y, wide, tall)
    iris = EYES[head.character.eye_colour]
    gx, gy = x + face.gaze[0] * 0.9 + head.ball.yaw * 0.008, y + face.gaze[1] * 0.8 + 0.3
    canvas.paint(
        f'<path d="{d}" fill="#fffdfa"/>'
        f'<path d="{ellipse(gx, gy, wide * 0.72, min(tall * 0.86, 3.7))}" fill="{iris}"/>'
        f'<path d="{ellipse(gx, gy + 0.1, wide * 0.4, min(tall * 0.55, 2.2))}" fill="{INK}"/>'
        f'<path d="{ellipse(gx - wide * 0.3, gy - tall * 0.32, wide * 0.27, 1.15)}" fill="#ffffff"/>'
        f'<path d="M{x - wide * 1.02:.2f} {y - tall * 0.15:.2f}'
        f"Q{x - wide * 0.9:.2f} {y - tall * 1.05:.2f} {x:.2f} {y - tall * 1.05:.2f}"
        f'T{x + wide * 1.02:.2f} {y - tall * 0.15:.2f}" fill="none" stroke="{INK}" stroke-width="1.6" '
        'stroke-linecap="round"/>'
    )
    canvas.label(name, "head", f'<path d="{d}" fill="{{0}}"/>')


def mouth_lips(head: Head, num_points: int = 5) -> tuple[list[Point], list[Point]]:
    """Give upper and lower edge of the mouth, each from its right corner to the left one, evenly spaced."""
    face = head.expression
    x, y, z = head.ball.at(0, 10.4, 1.0)
    wide = 4.3 * face.mouth_width * max(0.4, z) * (1 - 0.28 * max(0.0, face.mouth) * (1 - max(0.0, face.smile)))
    corner = y - 1.6 * face.smile + (0.6 if face.smile < 0 else 0.0)
    upper, lower = y + 0.5 * face.smile - 0.8 * face.mouth, y + 0.5 * face.smile + 4.2 * max(0.0, face.mouth)
    steps = [2 * i / (num_points - 1) - 1 for i in range(num_points)]

    def curve(middle: float) -> list[Point]:
        return [(x + wide * t, corner + (middle - corner) * (1 - t * t)) for t in steps]

    return curve(upper), curve(lower)


def draw_mouth(canvas: Canvas, head: Head, skin: str) -> None:
    """Draw the mouth where it is seen."""
    if head.ball.at(0, 10.4)[2] < 0.05:
        return
    upper, lower = mouth_lips(head)
    lip = mix(skin, "#7a1023", 0.62)
    if head.expression.mouth < 0.06:
        d = smooth(upper)
        canvas.paint(
            f'<path d="{d}" fill="none" stroke="{mix(lip, INK, 0.35)}" stroke-width="1.5" stroke-linecap="round"/>'
        )
        line = f'<path d="{d}" fill="none" stroke="{{0}}" stroke-width="1.5" stroke-linecap="round"/>'
        canvas.label("mouth", "head", line)
        return
    d = smooth(upper) + "L" + smooth(lower[::-1])[1:] + "Z"
    tongue = (lower[2][0], lower[2][1] - 0.2)
    canvas.paint(
        f'<path d="{d}" fill="#6d1527" stroke="{mix(lip, INK, 0.45)}" stroke-width="1.3" stroke-linejoin="round"/>'
    )
    if head.expression.mouth > 0.35:
        high = (lower[2][1] - upper[2][1]) * 0.3
        canvas.paint(f'<path d="{ellipse(*tongue, (lower[3][0] - lower[1][0]) * 0.42, high * 0.8)}" fill="#f0616d"/>')
        width = (upper[3][0] - upper[1][0]) * 0.5
        teeth = (
            f"M{upper[2][0] - width:.2f} {upper[2][1] + 0.4:.2f}h{2 * width:.2f}v{high * 0.45:.2f}h{-2 * width:.2f}Z"
        )
        canvas.paint(f'<path d="{teeth}" fill="#fff"/>')
    canvas.label("mouth", "head", f'<path d="{d}" fill="{{0}}" stroke="{{0}}" stroke-width="1.3"/>')


def brow_points(head: Head, side: int) -> list[tuple[float, float, float]]:
    """Give inner end, bow and outer end of a brow (side -1 right, 1 left) as x, y, z."""
    face = head.expression
    points: list[tuple[float, float, float]] = []
    for lon, slope in ((14, 1.0), (26, 0.0), (37, -0.7)):
        bend = 0.7 if slope == 0 else 0.0
        height = -5.6 - 1.1 * face.brow_height - 1.5 * face.brow_slope * slope - bend
        points.append(head.ball.at(side * lon, height))
    return points


def _brow(canvas: Canvas, head: Head, side: int) -> None:
    points = brow_points(head, side)
    if any(z < 0.1 for _, _, z in points):
        return
    ends = [(x, y) for x, y, _ in points]
    tone = mix(head.hair, INK, 0.35)
    canvas.paint(
        f'<path d="{smooth(ends)}" fill="none" stroke="{tone}" stroke-width="{1.25 * head.character.brow:.2f}" '
        'stroke-linecap="round"/>'
    )


def draw_glasses(canvas: Canvas, head: Head) -> None:
    """Draw the glasses."""
    rims: list[tuple[float, float, float]] = [head.ball.at(side * 25, 1.8, 1.03) for side in (-1, 1)]
    svg = ""
    for x, y, z in rims:
        if z > 0.2:
            svg += f'<path d="{ellipse(x, y, 5.9 * min(1.0, z * 1.05), 5.7)}"/>'
    (x0, y0, z0), (x1, y1, z1) = rims
    if z0 > 0.2 and z1 > 0.2:
        svg += f'<path d="M{x0 + 5.6 * z0:.2f} {y0:.2f}L{x1 - 5.6 * z1:.2f} {y1:.2f}"/>'
    canvas.paint(f'<g fill="#dff2ff" fill-opacity="0.25" stroke="{INK}" stroke-width="1.5">{svg}</g>')
    canvas.label("glasses", "head", f'<g fill="none" stroke="{{0}}" stroke-width="1.5">{svg}</g>')
