"""Patterns and emblems of garments."""

from __future__ import annotations

import math

from referencenet.paperdoll.canvas import Canvas, Point, polyline
from referencenet.paperdoll.character import Character
from referencenet.paperdoll.palette import CLOTH

Box = tuple[float, float, float, float]
# In units. A whole figure of 64 pixels has 0.6 pixels a unit: what is finer than this could not be told apart there.
_BAND, _CHECK, _DOT, _DOTS, _PIN, _PINS = 5.2, 7.0, 2.4, 7.2, 2.6, 7.0


def draw_pattern(canvas: Canvas, who: Character, box: Box) -> None:
    """Cover a box (left, top, right, bottom, in units) with the upper garment's pattern; the caller clips."""
    if who.pattern == "plain":
        return
    left, top, right, bottom = box
    colour = CLOTH[who.pattern_colour]
    if who.pattern == "striped":
        rows = range(math.floor(top / (2 * _BAND)), math.ceil(bottom / (2 * _BAND)) + 1)
        d = "".join(
            f"M{left:.2f} {row * 2 * _BAND + 1.2:.2f}h{right - left:.2f}v{_BAND}h{left - right:.2f}Z" for row in rows
        )
    elif who.pattern == "pinstriped":
        columns = range(math.floor(left / _PINS), math.ceil(right / _PINS) + 1)
        d = "".join(
            f"M{column * _PINS - _PIN / 2:.2f} {top:.2f}h{_PIN}v{bottom - top:.2f}h{-_PIN}Z" for column in columns
        )
    elif who.pattern == "dotted":
        half_turn = f"a{_DOT} {_DOT} 0 1 0"
        d = "".join(
            f"M{x - _DOT:.2f} {y:.2f}{half_turn} {2 * _DOT} 0{half_turn} {-2 * _DOT} 0Z" for x, y in _grid(box, _DOTS)
        )
    elif who.pattern == "checked":
        h = _CHECK / 2
        d = "".join(f"M{x - h:.2f} {y - h:.2f}h{_CHECK}v{_CHECK}h{-_CHECK}Z" for x, y in _grid(box, _CHECK))
    else:
        middle = top + (bottom - top) * 0.55
        d = f"M{left:.2f} {middle:.2f}H{right:.2f}V{bottom:.2f}H{left:.2f}Z"
    canvas.paint(f'<path d="{d}" fill="{colour}"/>')


def _grid(box: Box, step: float) -> list[Point]:
    """Every second field of a chessboard: centres that are one step apart, odd rows shifted by one."""
    left, top, right, bottom = box
    points: list[Point] = []
    for row in range(math.floor(top / step), math.ceil(bottom / step) + 1):
        for column in range(math.floor(left / step), math.ceil(right / step) + 1):
            if (row + column) % 2 == 0:
                points.append((column * step, row * step + 1.0))
    return points


def sleeve_pattern(canvas: Canvas, who: Character, points: list[Point], width: float) -> None:
    """Let the pattern run along a sleeve."""
    colour, d = CLOTH[who.pattern_colour], polyline(points)
    dashes = {
        "striped": f'stroke-width="{width:.2f}" stroke-dasharray="4.6 5" stroke-dashoffset="-3"',
        "checked": f'stroke-width="{width * 0.5:.2f}" stroke-dasharray="5 5"',
        "dotted": 'stroke-width="4.2" stroke-dasharray="0.01 7.2" stroke-linecap="round" stroke-dashoffset="-3"',
        "pinstriped": f'stroke-width="{_PIN}"',
    }
    if who.pattern in dashes:
        canvas.paint(f'<path d="{d}" fill="none" stroke="{colour}" {dashes[who.pattern]}/>')


def emblem_path(name: str) -> str:
    """Give an emblem around (0, 0) with a half width of about 1 as path data."""
    if name == "star":
        points = [
            (r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate([1.12, 0.5] * 5)
        ]
        return polyline(points) + "Z"
    return {
        "heart": "M0 1C-1.5 -.1 -1.05 -1.05 -.5 -1C-.2 -1 0 -.75 0 -.5C0 -.75 .2 -1 .5 -1C1.05 -1.05 1.5 -.1 0 1Z",
        "circle": "M-.95 0a.95 .95 0 1 0 1.9 0a.95 .95 0 1 0 -1.9 0Z",
        "bolt": "M.25 -1.2L-.8 .25H-.1L-.35 1.2L.8 -.3H.1Z",
        "cross": "M-.34 -1H.34V-.34H1V.34H.34V1H-.34V.34H-1V-.34H-.34Z",
    }[name]
