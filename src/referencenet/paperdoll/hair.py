"""Hair and hats: caps of hair down to a hairline that runs around the head, and what hangs, stands or sits on it."""

from __future__ import annotations

import math

from referencenet.paperdoll.ball import RX, RY, Head, ellipse
from referencenet.paperdoll.canvas import Canvas, Point, polyline, smooth
from referencenet.paperdoll.palette import CLOTH, SKIN, light, mix, shadow

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


def draw_hair(canvas: Canvas, head: Head) -> None:
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


def draw_stubble(canvas: Canvas, head: Head) -> None:
    """The shaved sides of a mohawk."""
    line = _surface_line(head, ((0, -11.0), (40, -9.0), (58, -3.0), (66, 4.0), (84, 3.0), (110, 8.0), (180, 11.0)))
    d = smooth(line) + f"L{RX + 4} {-RY - 4}L{-RX - 4} {-RY - 4}Z"
    tone = mix(SKIN[head.character.skin], head.hair, 0.35)
    canvas.paint(f'<path d="{d}" fill="{tone}"/>')
    canvas.label("hair", "head", f'<path d="{d}" fill="{{0}}"/>')


def _bumps(points: list[Point]) -> str:
    d = f"{points[0][0]:.2f} {points[0][1]:.2f}"
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        r = math.hypot(x1 - x0, y1 - y0) * 0.56
        d += f"A{r:.2f} {r:.2f} 0 0 0 {x1:.2f} {y1:.2f}"
    return d


def _bumps_closed(points: list[Point]) -> str:
    return "M" + _bumps([*points, points[0]]) + "Z"


def _gleam(canvas: Canvas) -> None:
    canvas.paint(
        f'<path d="{ellipse(-6.5, -11.0, 3.6, 1.7)}" fill="#fff" opacity="0.45" transform="rotate(-32 -6.5 -11)"/>'
    )


def _shine(canvas: Canvas, head: Head) -> None:
    if head.character.hat in ("none", "crown"):
        canvas.paint(
            f'<path d="M-11.5 -9.5Q-8.5 -13.6 -3 -14.4" fill="none" stroke="{light(light(head.hair))}" '
            'stroke-width="1.7" '
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


def draw_long_hair(canvas: Canvas, head: Head) -> None:
    """Draw the hair that hangs down the back."""
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
        d = (
            f"M-20 -2C{-22.5 + x:.2f} 6 {-22 + x:.2f} 14 {-20 + x:.2f} 18.5L{20 + x:.2f} 18.5"
            f"C{22 + x:.2f} 14 {22.5 + x:.2f} 6 20 -2Z"
        )
        canvas.shape(d, head.hair, "hair", "head", fill=dark)
    elif style == "curly":
        centres = [
            (20.5 * math.sin(math.radians(t)) - 2 * turn, 3 - 13 * math.cos(math.radians(t)))
            for t in range(70, 291, 20)
        ]
        canvas.shape(_bumps_closed(centres), head.hair, "hair", "head", fill=dark)


def draw_knots(canvas: Canvas, head: Head, *, front: bool) -> None:
    """Bun or tail; drawn after the head when the back of the head is seen."""
    style = head.character.hair_style
    turn = math.radians(head.ball.yaw)
    if style == "bun":
        x, y = -6.0 * math.sin(turn), -RY - 3.8
        if not front:
            canvas.shape(ellipse(x, y, 8.2, 7.4), head.hair, "hair", "head", fill=canvas.shade(head.hair, x - 8, x + 8))
    elif style == "ponytail" and (head.away > 0.3) is front:
        _tail(canvas, head, turn)


def _tail(canvas: Canvas, head: Head, turn: float) -> None:
    # High at the back of the head; from the front it still swings out at one side, or nobody would see it.
    back = -math.sin(turn)
    side = 1.0 if back >= -0.15 else -1.0
    root = (side * 11.0 * (1 - head.away), -9.0)
    bulge = side * (20.0 - 14.0 * head.away) + 8.0 * back
    d = (
        f"M{root[0] - 3 * side:.2f} {root[1] - 5:.2f}"
        f"C{bulge:.2f} {-18:.2f} {bulge + 9 * side:.2f} {-4:.2f} {bulge + 6 * side:.2f} 10"
        f"Q{bulge + 4 * side:.2f} 19 {bulge + 0.5 * side:.2f} 24Q{bulge - 6 * side:.2f} 16 {bulge - 5 * side:.2f} 6"
        f"Q{bulge - 5 * side:.2f} -2 {root[0]:.2f} {root[1] + 6:.2f}Z"
    )
    canvas.shape(d, head.hair, "hair", "head", fill=canvas.shade(head.hair, bulge - 12, bulge + 12))


def draw_hat(canvas: Canvas, head: Head) -> None:
    """Draw the hat."""
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
    d = (
        f"M{-a:.2f} {left:.2f}C{-a:.2f} {-b * 1.25:.2f} {a:.2f} {-b * 1.25:.2f} {a:.2f} {right:.2f}"
        f"Q0 {2 * brim[len(brim) // 2][1] - (left + right) / 2:.2f} {-a:.2f} {left:.2f}Z"
    )
    canvas.shape(d, colour, "hat", "head", fill=canvas.shade(colour, -a, a, 0.74))
    if kind == "beanie":
        band = polyline([(-a, left - 1), (0, brim[len(brim) // 2][1] - 0.8), (a, right - 1)])
        canvas.paint(
            f'<path d="{band}" fill="none" stroke="{shadow(colour)}" stroke-width="4.6" stroke-linecap="round"/>'
        )
        canvas.shape(ellipse(-3 * turn, -b * 1.05, 4.2, 4.0), light(colour), "hat", "head")
    elif head.away < 0.7:
        x, y, z = head.ball.at(0, -7.0, 1.1)
        wide = 13.0 * max(0.55, z)
        visor = (
            f"M{x - wide:.2f} {y - 0.5:.2f}Q{x:.2f} {y - 5:.2f} {x + wide:.2f} {y - 0.5:.2f}"
            f"Q{x + 9 * turn:.2f} {y + 6:.2f} {x - wide:.2f} {y - 0.5:.2f}Z"
        )
        canvas.shape(visor, shadow(colour), "hat", "head")
