"""Head, face and hair, placed on a ball that turns: a point of the face is a longitude and a latitude.

The head is drawn around (0, 0) in units and moved into the figure by a transform, so it is drawn the same way alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from referencenet.paperdoll.canvas import Canvas, Point, polyline, smooth
from referencenet.paperdoll.character import Character
from referencenet.paperdoll.palette import CLOTH, EYES, HAIR, INK, SKIN, light, mix, outline, shadow
from referencenet.paperdoll.scene import Expression

RX, RY = 17.0, 16.2
_JAWS = {"round": (0.78, 0.62), "oval": (0.62, 0.42), "square": (0.95, 0.74)}
# Lower edge of the hair as (longitude from the nose, height in units), from the front to the back of the head.
_HAIRLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "short": ((0, -8.0), (30, -8.5), (52, -4.0), (66, 3.0), (84, 4.0), (110, 8.0), (180, 11.0)),
    "long": ((0, -10.5), (20, -8.6), (44, -5.2), (62, 0.0), (74, 8.0), (84, 14.5), (110, 15.5), (180, 15.8)),
    "bob": ((0, -5.2), (26, -5.2), (58, -4.6), (66, 2.0), (72, 9.0), (86, 13.0), (110, 14.0), (180, 14.5)),
    "ponytail": ((0, -9.5), (28, -8.0), (50, -3.0), (66, 1.0), (84, 1.0), (110, 6.0), (180, 11.0)),
    "bun": ((0, -10.5), (28, -9.0), (50, -4.0), (68, 2.0), (84, 1.0), (110, 6.0), (180, 11.0)),
    "spiky": (
        (0, -5.0),
        (11, -9.0),
        (22, -4.5),
        (34, -8.5),
        (46, -2.5),
        (58, -4.5),
        (68, 3.5),
        (84, 2.0),
        (110, 8.0),
        (180, 11.0),
    ),
    "curly": (
        (0, -8.0),
        (14, -6.2),
        (28, -8.2),
        (42, -4.0),
        (58, -3.0),
        (70, 6.0),
        (88, 9.0),
        (110, 12.0),
        (180, 14.0),
    ),
    "mohawk": ((0, -13.0), (10, -13.4), (20, -16.0), (180, -16.0)),
}
_SIDES: dict[str, float] = {
    "short": 1.6,
    "long": 2.6,
    "bob": 3.2,
    "ponytail": 1.6,
    "bun": 1.6,
    "spiky": 2.2,
    "curly": 3.0,
}


@dataclass(frozen=True)
class Ball:
    """The turned head: where points of its surface come to lie."""

    yaw: float
    pitch: float

    def at(
        self, longitude: float, height: float, lift: float = 1.0, *, hanging: bool = False
    ) -> tuple[float, float, float]:
        """Place the point at a longitude (degrees from the nose) and a height (units, down): x, y, z with z > 0 in front.

        `hanging` is for hair: below the middle it falls straight down instead of following the chin.
        """
        sine = max(-1.0, min(1.0, height / RY))
        ring = math.sqrt(1 - sine * sine)
        if hanging and height > 0:
            ring = max(ring, 0.96)
        angle, pitch = math.radians(longitude + self.yaw), math.radians(self.pitch)
        x, y, z = ring * math.sin(angle), sine, ring * math.cos(angle)
        return (
            x * RX * lift,
            (y * math.cos(pitch) + z * math.sin(pitch)) * RY * lift,
            z * math.cos(pitch) - y * math.sin(pitch),
        )


@dataclass(frozen=True)
class Head:
    """Everything that is needed to draw a head."""

    character: Character
    expression: Expression
    ball: Ball

    @property
    def hair(self) -> str:
        """The hair colour as `#rrggbb`."""
        return HAIR[self.character.hair_colour]

    @property
    def away(self) -> float:
        """How far the head is turned from the viewer: 0 the face is seen, 1 the back of the head."""
        return max(0.0, -math.cos(math.radians(self.ball.yaw)))


def face_path(face: str) -> str:
    """Give the outline of a face as path data."""
    cheek, chin = _JAWS[face]
    x, y, c, j = RX, RY, cheek * RY, chin * RX
    k = 0.5523
    return (
        f"M{-x:.2f} 0C{-x:.2f} {-y * k:.2f} {-x * k:.2f} {-y:.2f} 0 {-y:.2f}C{x * k:.2f} {-y:.2f} {x:.2f} {-y * k:.2f} {x:.2f} 0"
        f"C{x:.2f} {c:.2f} {j:.2f} {y:.2f} 0 {y:.2f}C{-j:.2f} {y:.2f} {-x:.2f} {c:.2f} {-x:.2f} 0Z"
    )


def draw_behind(canvas: Canvas, head: Head) -> None:
    """Draw what hangs behind the body of somebody who faces the viewer: long hair, tail, bun."""
    if head.away < 0.5:
        _long_hair(canvas, head)
    _knots(canvas, head, front=False)


def draw_head(canvas: Canvas, head: Head) -> None:
    """Draw the head itself: ears, face, features, hair and hat."""
    skin = SKIN[head.character.skin]
    _ears(canvas, head, skin, front=False)
    path = face_path(head.character.face)
    canvas.shape(path, skin, "face", "head", fill=canvas.shade(skin, -RX, RX, 0.8))
    canvas.group(canvas.clip(path))
    if head.character.hair_style == "mohawk":
        _stubble(canvas, head)
    _cheeks(canvas, head, skin)
    _beard(canvas, head)
    _features(canvas, head, skin)
    canvas.end()
    if head.character.glasses:
        _glasses(canvas, head)
    _ears(canvas, head, skin, front=True)
    if head.away >= 0.5:
        _long_hair(canvas, head)
    _hair_cap(canvas, head)
    _hat(canvas, head)
    _knots(canvas, head, front=True)


def _ears(canvas: Canvas, head: Head, skin: str, *, front: bool) -> None:
    if head.character.hair_style in ("long", "bob", "curly"):
        return
    for side, name in ((-1, "right ear"), (1, "left ear")):
        x, y, z = head.ball.at(side * 88, 2.5, 1.04)
        if (z > 0.12) is front:
            d = _ellipse(x, y, 3.0, 3.7)
            canvas.shape(d, skin, name, "head")
            canvas.paint(f'<path d="{_ellipse(x, y, 1.3, 2.0)}" fill="{shadow(skin)}"/>')


def _ellipse(x: float, y: float, rx: float, ry: float) -> str:
    return f"M{x - rx:.2f} {y:.2f}a{rx:.2f} {ry:.2f} 0 1 0 {2 * rx:.2f} 0a{rx:.2f} {ry:.2f} 0 1 0 {-2 * rx:.2f} 0Z"


def _cheeks(canvas: Canvas, head: Head, skin: str) -> None:
    for side in (-1, 1):
        x, y, z = head.ball.at(side * 44, 8.6)
        if z > 0.15:
            tone = mix(skin, "#ff4d5e", 0.3)
            canvas.paint(f'<ellipse cx="{x:.2f}" cy="{y:.2f}" rx="{3.4 * z:.2f}" ry="2" fill="{tone}" opacity="0.75"/>')


def _stubble(canvas: Canvas, head: Head) -> None:
    """The shaved sides of a mohawk."""
    line = _surface_line(head, ((0, -11.0), (40, -9.0), (58, -3.0), (66, 4.0), (84, 3.0), (110, 8.0), (180, 11.0)))
    d = smooth(line) + f"L{RX + 4} {-RY - 4}L{-RX - 4} {-RY - 4}Z"
    tone = mix(SKIN[head.character.skin], head.hair, 0.35)
    canvas.paint(f'<path d="{d}" fill="{tone}"/>')
    canvas.label("hair", "head", f'<path d="{d}" fill="{{0}}"/>')


def _beard(canvas: Canvas, head: Head) -> None:
    if not head.character.beard or head.away > 0.25:
        return
    line = [head.ball.at(lon, height)[:2] for lon, height in _beard_edge(head)]
    d = smooth(line) + f"L{line[-1][0]:.2f} {RY + 9}L{line[0][0]:.2f} {RY + 9}Z"
    canvas.paint(f'<path d="{d}" fill="{head.hair}" stroke="{outline(head.hair)}" stroke-width="1.2"/>')
    canvas.label("beard", "head", f'<path d="{d}" fill="{{0}}"/>')


def _beard_edge(head: Head) -> list[Point]:
    edge = [(-84, -1.0), (-70, 5.0), (-54, 10.0), (-26, 8.4), (0, 7.4), (26, 8.4), (54, 10.0), (70, 5.0), (84, -1.0)]
    return [(lon, height) for lon, height in edge if abs(lon + head.ball.yaw) <= 96]


def _features(canvas: Canvas, head: Head, skin: str) -> None:
    for side, name in ((-1, "right eye"), (1, "left eye")):
        _eye(canvas, head, side, name)
    x, y, z = head.ball.at(0, 5.6, 1.05)
    if z > 0:
        canvas.paint(
            f'<path d="M{x - 1.1 * z:.2f} {y:.2f}q{1.1 * z:.2f} 1.2 {2.2 * z:.2f} 0" fill="none" '
            f'stroke="{mix(skin, INK, 0.45)}" stroke-width="1" stroke-linecap="round"/>'
        )
        canvas.label("nose", "head", f'<path d="{_ellipse(x, y, 1.6, 1.3)}" fill="{{0}}"/>')
    draw_mouth(canvas, head, skin)
    for side in (-1, 1):
        _brow(canvas, head, side)


def _eye(canvas: Canvas, head: Head, side: int, name: str) -> None:
    x, y, z = head.ball.at(side * 25, 1.6)
    if z < 0.12:
        return
    face = head.expression
    wide, opening = 3.9 * max(0.45, min(1.0, z * 1.06)), face.eyes
    if opening < 0.25:
        d = f"M{x - wide:.2f} {y + 0.6:.2f}q{wide:.2f} 2.4 {2 * wide:.2f} 0"
        canvas.paint(f'<path d="{d}" fill="none" stroke="{INK}" stroke-width="1.7" stroke-linecap="round"/>')
        canvas.label(name, "head", f'<path d="{d}" fill="none" stroke="{{0}}" stroke-width="1.7"/>')
        return
    tall = 4.7 * min(1.2, opening)
    d = _ellipse(x, y, wide, tall)
    iris = EYES[head.character.eye_colour]
    gx, gy = x + face.gaze[0] * 0.9 + head.ball.yaw * 0.008, y + face.gaze[1] * 0.8 + 0.3
    canvas.paint(
        f'<path d="{d}" fill="#fffdfa"/>'
        f'<path d="{_ellipse(gx, gy, wide * 0.72, min(tall * 0.86, 3.7))}" fill="{iris}"/>'
        f'<path d="{_ellipse(gx, gy + 0.1, wide * 0.4, min(tall * 0.55, 2.2))}" fill="{INK}"/>'
        f'<path d="{_ellipse(gx - wide * 0.3, gy - tall * 0.32, wide * 0.27, 1.15)}" fill="#ffffff"/>'
        f'<path d="M{x - wide * 1.02:.2f} {y - tall * 0.15:.2f}Q{x - wide * 0.9:.2f} {y - tall * 1.05:.2f} {x:.2f} {y - tall * 1.05:.2f}'
        f'T{x + wide * 1.02:.2f} {y - tall * 0.15:.2f}" fill="none" stroke="{INK}" stroke-width="1.6" stroke-linecap="round"/>'
    )
    canvas.label(name, "head", f'<path d="{d}" fill="{{0}}"/>')


def mouth_lips(head: Head) -> tuple[list[Point], list[Point]]:
    """Give upper and lower edge of the mouth, five points each from the right corner of the mouth to the left one."""
    face = head.expression
    x, y, z = head.ball.at(0, 10.4, 1.0)
    wide = 4.3 * face.mouth_width * max(0.4, z) * (1 - 0.28 * max(0.0, face.mouth) * (1 - max(0.0, face.smile)))
    corner = y - 1.6 * face.smile + (0.6 if face.smile < 0 else 0.0)
    upper, lower = y + 0.5 * face.smile - 0.8 * face.mouth, y + 0.5 * face.smile + 4.2 * max(0.0, face.mouth)

    def curve(middle: float) -> list[Point]:
        return [(x + wide * t, corner + (middle - corner) * (1 - t * t)) for t in (-1.0, -0.5, 0.0, 0.5, 1.0)]

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
        canvas.label("mouth", "head", f'<path d="{d}" fill="none" stroke="{{0}}" stroke-width="1.5"/>')
        return
    d = smooth(upper) + "L" + smooth(lower[::-1])[1:] + "Z"
    tongue = (lower[2][0], lower[2][1] - 0.2)
    canvas.paint(
        f'<path d="{d}" fill="#6d1527" stroke="{mix(lip, INK, 0.45)}" stroke-width="1.3" stroke-linejoin="round"/>'
    )
    if head.expression.mouth > 0.35:
        high = (lower[2][1] - upper[2][1]) * 0.3
        canvas.paint(f'<path d="{_ellipse(*tongue, (lower[3][0] - lower[1][0]) * 0.42, high * 0.8)}" fill="#f0616d"/>')
        width = (upper[3][0] - upper[1][0]) * 0.5
        canvas.paint(
            f'<path d="M{upper[2][0] - width:.2f} {upper[2][1] + 0.4:.2f}h{2 * width:.2f}v{high * 0.45:.2f}h{-2 * width:.2f}Z" fill="#fff"/>'
        )
    canvas.label("mouth", "head", f'<path d="{d}" fill="{{0}}" stroke="{{0}}" stroke-width="1.3"/>')


def _brow(canvas: Canvas, head: Head, side: int) -> None:
    face = head.expression
    ends: list[Point] = []
    for lon, slope in ((14, 1.0), (26, 0.0), (37, -0.7)):
        bend = 0.7 if slope == 0 else 0.0
        x, y, z = head.ball.at(side * lon, -5.6 - 1.1 * face.brow_height - 1.5 * face.brow_slope * slope - bend)
        if z < 0.1:
            return
        ends.append((x, y))
    tone = mix(head.hair, INK, 0.35)
    canvas.paint(
        f'<path d="{smooth(ends)}" fill="none" stroke="{tone}" stroke-width="{1.25 * head.character.brow:.2f}" stroke-linecap="round"/>'
    )


def _glasses(canvas: Canvas, head: Head) -> None:
    rims: list[tuple[float, float, float]] = [head.ball.at(side * 25, 1.8, 1.03) for side in (-1, 1)]
    svg = ""
    for x, y, z in rims:
        if z > 0.2:
            svg += f'<path d="{_ellipse(x, y, 5.9 * min(1.0, z * 1.05), 5.7)}"/>'
    (x0, y0, z0), (x1, y1, z1) = rims
    if z0 > 0.2 and z1 > 0.2:
        svg += f'<path d="M{x0 + 5.6 * z0:.2f} {y0:.2f}L{x1 - 5.6 * z1:.2f} {y1:.2f}"/>'
    canvas.paint(f'<g fill="#dff2ff" fill-opacity="0.25" stroke="{INK}" stroke-width="1.5">{svg}</g>')


def _surface_line(head: Head, edge: tuple[tuple[float, float], ...]) -> list[Point]:
    """Project an edge around the head, given from nose to nape, to the visible side, from left to right."""
    points: list[Point] = []
    knots = [(-lon, height) for lon, height in reversed(edge[1:])] + list(edge)
    turned = sorted(((lon + head.ball.yaw + 180) % 360 - 180, height) for lon, height in knots)
    turned = [(turned[-1][0] - 360, turned[-1][1]), *turned, (turned[0][0] + 360, turned[0][1])]
    for (lon0, h0), (lon1, h1) in zip(turned, turned[1:], strict=False):
        for limit in (-90.0, 90.0):
            if lon0 < limit < lon1:
                height = h0 + (h1 - h0) * (limit - lon0) / (lon1 - lon0)
                points.append(head.ball.at(limit - head.ball.yaw, height, hanging=True)[:2])
        if -90 <= lon1 <= 90:
            points.append(head.ball.at(lon1 - head.ball.yaw, h1, hanging=True)[:2])
    return points


def _hair_cap(canvas: Canvas, head: Head) -> None:
    """Hair that lies on the head, down to its hairline."""
    style = head.character.hair_style
    if style == "bald":
        _gleam(canvas)
        return
    if style == "mohawk":
        _crest(canvas, head)
        return
    line = _surface_line(head, _HAIRLINES[style])
    puff = _SIDES[style]
    left, right = line[0], line[-1]
    a, b = RX + puff, RY + puff * 0.9
    rim = [(a * math.sin(t), -b * math.cos(t)) for t in (math.radians(i) for i in range(82, -83, -16))]
    if style == "spiky":
        rim = [
            (x * (1.24 if i % 2 else 1.0) + (1.5 if i % 2 else 0), y * (1.24 if i % 2 else 1.0))
            for i, (x, y) in enumerate(rim)
        ]
        outer = polyline([(a, right[1]), *rim, (-a, left[1])])[1:]
    elif style == "curly":
        outer = _bumps([(a + 0.5, right[1]), *[(x * 1.08, y * 1.1) for x, y in rim], (-a - 0.5, left[1])])
    else:
        outer = smooth([(a, right[1]), *rim, (-a, left[1])])[1:]
    d = (polyline(line) if style in ("spiky", "bob") else smooth(line)) + f"L{outer}Z"
    canvas.shape(d, head.hair, "hair", "head", fill=canvas.shade(head.hair, -a, a, 0.74))
    _shine(canvas, head)


def _bumps(points: list[Point]) -> str:
    d = f"{points[0][0]:.2f} {points[0][1]:.2f}"
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        r = math.hypot(x1 - x0, y1 - y0) * 0.56
        d += f"A{r:.2f} {r:.2f} 0 0 0 {x1:.2f} {y1:.2f}"
    return d


def _gleam(canvas: Canvas) -> None:
    canvas.paint(
        f'<path d="{_ellipse(-6.5, -11.0, 3.6, 1.7)}" fill="#fff" opacity="0.45" transform="rotate(-32 -6.5 -11)"/>'
    )


def _shine(canvas: Canvas, head: Head) -> None:
    if head.character.hat in ("none", "crown"):
        canvas.paint(
            f'<path d="M-11.5 -9.5Q-8.5 -13.6 -3 -14.4" fill="none" stroke="{light(light(head.hair))}" stroke-width="1.7" '
            'stroke-linecap="round" opacity="0.8"/>'
        )


def _crest(canvas: Canvas, head: Head) -> None:
    """The comb of a mohawk: a fan over the middle line, seen on edge from the front and broad from the side."""
    turn = math.radians(head.ball.yaw)
    half, middle = 20.0 + 42.0 * abs(math.sin(turn)), -14.0 * math.sin(turn)
    num_spikes = 3 if half < 36 else 7
    points: list[Point] = []
    for i in range(2 * num_spikes + 1):
        angle = math.radians(middle - half + i * half / num_spikes)
        radius = RY + (
            12.5 - 4.0 * abs(i / num_spikes - 1)
            if i % 2
            else 7.5 - 4.0 * abs(i / num_spikes - 1)
            if 0 < i < 2 * num_spikes
            else -3.0
        )
        points.append((radius * math.sin(angle), -radius * math.cos(angle)))
    low = math.radians(middle)
    d = polyline([*points, ((RY - 5) * math.sin(low), -(RY - 5) * math.cos(low))]) + "Z"
    canvas.shape(d, head.hair, "hair", "head", fill=canvas.shade(head.hair, points[0][0], points[-1][0]))


def _long_hair(canvas: Canvas, head: Head) -> None:
    style = head.character.hair_style
    turn = math.sin(math.radians(head.ball.yaw)) * (1 - head.away)
    dark = shadow(head.hair) if head.away < 0.5 else head.hair
    if style == "long":
        x = -4.0 * turn
        d = (
            f"M{-19.5 + x * 0.3:.2f} -4C{-22 + x:.2f} 12 {-21 + x:.2f} 26 {-18 + x:.2f} 36Q{x - 8:.2f} 40 {x:.2f} 38"
            f"Q{x + 8:.2f} 40 {18 + x:.2f} 36C{21 + x:.2f} 26 {22 + x:.2f} 12 {19.5 + x * 0.3:.2f} -4Z"
        )
        canvas.shape(d, head.hair, "hair", "head", fill=dark)
    elif style == "bob":
        x = -2.0 * turn
        d = f"M-20 -2C{-22.5 + x:.2f} 6 {-22 + x:.2f} 14 {-20 + x:.2f} 18.5L{20 + x:.2f} 18.5C{22 + x:.2f} 14 {22.5 + x:.2f} 6 20 -2Z"
        canvas.shape(d, head.hair, "hair", "head", fill=dark)
    elif style == "curly":
        centres = [
            (20.5 * math.sin(math.radians(t)) - 2 * turn, 3 - 13 * math.cos(math.radians(t)))
            for t in range(70, 291, 20)
        ]
        canvas.shape(_bumps_closed(centres), head.hair, "hair", "head", fill=dark)


def _bumps_closed(points: list[Point]) -> str:
    return "M" + _bumps([*points, points[0]]) + "Z"


def _knots(canvas: Canvas, head: Head, *, front: bool) -> None:
    """Bun or tail; drawn after the head when the back of the head is seen."""
    style = head.character.hair_style
    turn = math.radians(head.ball.yaw)
    if style == "bun":
        x, y = -6.0 * math.sin(turn), -RY - 3.8
        if not front:
            canvas.shape(
                _ellipse(x, y, 8.2, 7.4), head.hair, "hair", "head", fill=canvas.shade(head.hair, x - 8, x + 8)
            )
    elif style == "ponytail" and (head.away > 0.3) is front:
        _tail(canvas, head, turn)


def _tail(canvas: Canvas, head: Head, turn: float) -> None:
    # High at the back of the head; from the front it still swings out at one side, or nobody would see it.
    back = -math.sin(turn)
    side = 1.0 if back >= -0.15 else -1.0
    root = (side * 11.0 * (1 - head.away), -9.0)
    bulge = side * (20.0 - 14.0 * head.away) + 8.0 * back
    d = (
        f"M{root[0] - 3 * side:.2f} {root[1] - 5:.2f}C{bulge:.2f} {-18:.2f} {bulge + 9 * side:.2f} {-4:.2f} {bulge + 6 * side:.2f} 10"
        f"Q{bulge + 4 * side:.2f} 19 {bulge + 0.5 * side:.2f} 24Q{bulge - 6 * side:.2f} 16 {bulge - 5 * side:.2f} 6"
        f"Q{bulge - 5 * side:.2f} -2 {root[0]:.2f} {root[1] + 6:.2f}Z"
    )
    canvas.shape(d, head.hair, "hair", "head", fill=canvas.shade(head.hair, bulge - 12, bulge + 12))


def _hat(canvas: Canvas, head: Head) -> None:
    kind = head.character.hat
    if kind == "none":
        return
    colour = CLOTH[head.character.hat_colour]
    a, b = RX + 3.2, RY + 4.0
    turn = math.sin(math.radians(head.ball.yaw))
    if kind == "crown":
        top = [(-11, -13), (-13, -25), (-6.5, -19), (0, -27), (6.5, -19), (13, -25), (11, -13)]
        d = polyline(top) + "Q0 -9.5 -11 -13Z"
        canvas.shape(d, CLOTH["yellow"], "hat", "head", fill=canvas.shade(CLOTH["yellow"], -13, 13))
        for x in (-6, 0, 6):
            canvas.paint(f'<circle cx="{x}" cy="-14.6" r="1.6" fill="{colour}"/>')
        return
    brim = _surface_line(head, ((0, -7.0), (90, -7.0), (180, -7.0)))
    left, right = brim[0][1], brim[-1][1]
    d = f"M{-a:.2f} {left:.2f}C{-a:.2f} {-b * 1.25:.2f} {a:.2f} {-b * 1.25:.2f} {a:.2f} {right:.2f}Q0 {2 * brim[len(brim) // 2][1] - (left + right) / 2:.2f} {-a:.2f} {left:.2f}Z"
    canvas.shape(d, colour, "hat", "head", fill=canvas.shade(colour, -a, a, 0.74))
    if kind == "beanie":
        band = polyline([(-a, left - 1), (0, brim[len(brim) // 2][1] - 0.8), (a, right - 1)])
        canvas.paint(
            f'<path d="{band}" fill="none" stroke="{shadow(colour)}" stroke-width="4.6" stroke-linecap="round"/>'
        )
        canvas.shape(_ellipse(-3 * turn, -b * 1.05, 4.2, 4.0), light(colour), "hat", "head")
    elif head.away < 0.7:
        x, y, z = head.ball.at(0, -7.0, 1.1)
        wide = 13.0 * max(0.55, z)
        visor = f"M{x - wide:.2f} {y - 0.5:.2f}Q{x:.2f} {y - 5:.2f} {x + wide:.2f} {y - 0.5:.2f}Q{x + 9 * turn:.2f} {y + 6:.2f} {x - wide:.2f} {y - 0.5:.2f}Z"
        canvas.shape(visor, shadow(colour), "hat", "head")
