"""The places a figure stands in, drawn pale and simple enough to stay behind it even at 64 pixels."""

from __future__ import annotations

from collections.abc import Callable

from referencenet.paperdoll.canvas import Canvas, Point, smooth
from referencenet.paperdoll.palette import PLAIN
from referencenet.paperdoll.scene import Background
from referencenet.paperdoll.streams import Stream

HEIGHT = 100.0
_HORIZONS = {"full body": 66.0, "upper body": 78.0, "portrait": 86.0}


def draw_backdrop(canvas: Canvas, background: Background, shot: str, width: float) -> None:
    """Fill a picture of `width` by `HEIGHT` units."""
    if background.name == "plain":
        _rect(canvas, 0, 0, width, HEIGHT, PLAIN[background.colour])
        return
    places: dict[str, Callable[[Canvas, Stream, float, float], None]] = {
        "meadow": _meadow,
        "city": _city,
        "beach": _beach,
        "night": _night,
        "snow": _snow,
        "desert": _desert,
        "room": _room,
        "forest": _forest,
    }
    places[background.name](canvas, Stream("backdrop", background.seed), width, _HORIZONS[shot])


def _rect(canvas: Canvas, x: float, y: float, width: float, height: float, colour: str) -> None:
    canvas.paint(f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{colour}"/>')


def _disc(canvas: Canvas, x: float, y: float, radius: float, colour: str) -> None:
    canvas.paint(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}" fill="{colour}"/>')


def _sky(canvas: Canvas, width: float, high: str, low: str) -> None:
    canvas.paint(
        f'<linearGradient id="sky" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="{high}"/>'
        f'<stop offset="0.8" stop-color="{low}"/></linearGradient>'
    )
    canvas.paint(f'<rect width="{width:.2f}" height="{HEIGHT}" fill="url(#sky)"/>')


def _hills(canvas: Canvas, stream: Stream, width: float, y: float, swing: float, colour: str) -> None:
    step = 26.0
    points: list[Point] = [(x * step - 10, y + stream.uniform(-swing, swing)) for x in range(int(width / step) + 3)]
    canvas.paint(f'<path d="{smooth(points)}V{HEIGHT + 1}H-10Z" fill="{colour}"/>')


def _cloud(canvas: Canvas, x: float, y: float, size: float, colour: str) -> None:
    for dx, dy, r in ((-6, 1, 4), (0, -1.2, 5.4), (6, 0.8, 4.2)):
        _disc(canvas, x + dx * size, y + dy * size, r * size, colour)


def _meadow(canvas: Canvas, stream: Stream, width: float, horizon: float) -> None:
    _sky(canvas, width, "#9fd4f7", "#e3f4fb")
    for _ in range(2):
        _cloud(canvas, stream.uniform(0, width), stream.uniform(8, 30), stream.uniform(0.8, 1.4), "#ffffff")
    _hills(canvas, stream, width, horizon - 8, 5, "#b9dfa0")
    _hills(canvas, stream, width, horizon + 3, 2, "#9ed286")
    for _ in range(9):
        x, y = stream.uniform(0, width), stream.uniform(horizon + 9, HEIGHT)
        _disc(canvas, x, y, 1.4, stream.choice(("#fff6c9", "#ffd9e6", "#ffffff")))


def _city(canvas: Canvas, stream: Stream, width: float, horizon: float) -> None:
    _sky(canvas, width, "#c6d9ea", "#f1ead9")
    x = -stream.uniform(0, 10)
    while x < width:
        wide, tall = stream.uniform(12, 19), stream.uniform(22, 52)
        tone = stream.choice(("#a9b6c9", "#b9bfd3", "#9facbf", "#c0b9c4"))
        _rect(canvas, x, horizon - tall, wide, tall + 1, tone)
        windows = "".join(
            f"M{x + 2.4 + 4.4 * i:.1f} {horizon - tall + 3 + 7 * j:.1f}h2.4v3.6h-2.4Z"
            for i in range(int((wide - 3) / 4.4))
            for j in range(int((tall - 4) / 7))
        )
        canvas.paint(f'<path d="{windows}" fill="#e9eef4" opacity="0.8"/>')
        x += wide + stream.uniform(0, 3)
    _rect(canvas, 0, horizon, width, HEIGHT - horizon, "#b3b1b8")
    _rect(canvas, 0, horizon, width, 3.0, "#d4d1d3")
    for i in range(int(width / 18) + 2):
        _rect(canvas, i * 18 - 4, horizon + 20, 9, 2.2, "#efe9d8")


def _beach(canvas: Canvas, stream: Stream, width: float, horizon: float) -> None:
    _sky(canvas, width, "#8fd3f5", "#dff3fa")
    _disc(canvas, stream.uniform(0.1, 0.9) * width, stream.uniform(10, 22), 8, "#fff3b8")
    _rect(canvas, 0, horizon - 18, width, 20, "#58b4d8")
    for _ in range(7):
        _rect(
            canvas,
            stream.uniform(-5, width),
            stream.uniform(horizon - 15, horizon - 4),
            stream.uniform(5, 13),
            1.1,
            "#a9dcee",
        )
    _hills(canvas, stream, width, horizon, 1.6, "#f4e2ae")
    for _ in range(6):
        _disc(canvas, stream.uniform(0, width), stream.uniform(horizon + 8, HEIGHT), 1.1, "#dfc384")


def _night(canvas: Canvas, stream: Stream, width: float, horizon: float) -> None:
    _sky(canvas, width, "#1d2550", "#54609b")
    for _ in range(22):
        _disc(canvas, stream.uniform(0, width), stream.uniform(2, horizon - 14), stream.uniform(0.5, 1.1), "#f3f0ce")
    x, y = stream.uniform(0.1, 0.9) * width, stream.uniform(12, 20)
    canvas.paint(f'<path d="M{x:.2f} {y - 8:.2f}a8 8 0 1 0 8 9.5a6.6 6.6 0 0 1 -8 -9.5Z" fill="#f6efc4"/>')
    _hills(canvas, stream, width, horizon - 4, 5, "#39477c")
    _hills(canvas, stream, width, horizon + 5, 2, "#4b5a8c")


def _snow(canvas: Canvas, stream: Stream, width: float, horizon: float) -> None:
    _sky(canvas, width, "#c3d5e6", "#e4edf4")
    for x in (stream.uniform(0, 0.3), stream.uniform(0.7, 1.0)):
        middle, top = x * width, horizon - stream.uniform(30, 46)
        canvas.paint(
            f'<path d="M{middle - 32:.1f} {horizon + 6}L{middle:.1f} {top:.1f}L{middle + 32:.1f} {horizon + 6}Z" '
            'fill="#a9bdd2"/>'
        )
        canvas.paint(
            f'<path d="M{middle - 9:.1f} {top + 12.5:.1f}L{middle:.1f} {top:.1f}L{middle + 9:.1f} {top + 12.5:.1f}'
            f'L{middle:.1f} {top + 9:.1f}Z" fill="#fff"/>'
        )
    _hills(canvas, stream, width, horizon, 2.5, "#eef4f9")
    for _ in range(20):
        _disc(canvas, stream.uniform(0, width), stream.uniform(0, HEIGHT), stream.uniform(0.7, 1.4), "#ffffff")


def _desert(canvas: Canvas, stream: Stream, width: float, horizon: float) -> None:
    _sky(canvas, width, "#fbd39b", "#fdeccb")
    _disc(canvas, stream.uniform(0.1, 0.9) * width, stream.uniform(14, 26), 9, "#fff5d6")
    _hills(canvas, stream, width, horizon - 6, 6, "#e8b878")
    _hills(canvas, stream, width, horizon + 4, 3, "#dca766")
    for side in (stream.uniform(0.04, 0.2), stream.uniform(0.8, 0.96)):
        x, y = side * width, horizon + stream.uniform(4, 12)
        canvas.paint(
            f'<path d="M{x:.1f} {y:.1f}v-24M{x:.1f} {y - 10:.1f}h-6v-7M{x:.1f} {y - 7:.1f}h6v-9" fill="none" '
            'stroke="#8fa863" '
            'stroke-width="4" stroke-linecap="round" stroke-linejoin="round"/>'
        )


def _room(canvas: Canvas, stream: Stream, width: float, horizon: float) -> None:
    wall = stream.choice(("#efdcc6", "#d9e2d0", "#e6d3d9", "#d3dbe8"))
    _rect(canvas, 0, 0, width, HEIGHT, wall)
    x = stream.uniform(0.02, 0.2) * width if stream.chance(0.5) else stream.uniform(0.62, 0.74) * width
    _rect(canvas, x, 14, 24, 30, "#fffaf0")
    _rect(canvas, x + 2, 16, 20, 26, "#a8d8f2")
    _rect(canvas, x + 11, 16, 2, 26, "#fffaf0")
    _rect(canvas, x + 2, 28, 20, 2, "#fffaf0")
    _rect(canvas, 0, horizon, width, HEIGHT - horizon, "#c89b6d")
    _rect(canvas, 0, horizon - 2.5, width, 3, "#fff6e8")
    for y in (horizon + 9, horizon + 20, horizon + 32):
        _rect(canvas, 0, y, width, 0.9, "#b0834f")


def _forest(canvas: Canvas, stream: Stream, width: float, horizon: float) -> None:
    _sky(canvas, width, "#cfe6d4", "#eaf3dd")
    for depth, tone in enumerate(("#a3c7a6", "#7fae86")):
        x = -stream.uniform(0, 12)
        while x < width + 10:
            base, tall = horizon + 2 + 3 * depth, stream.uniform(34, 54)
            _rect(canvas, x - 1.6, base - 8, 3.2, 9, "#8d6f55")
            d = "".join(
                f"M{x - 11 + 2.6 * i:.1f} {base - 6 - i * tall * 0.24:.1f}"
                f"L{x:.1f} {base - 6 - (i + 1.7) * tall * 0.27:.1f}"
                f"L{x + 11 - 2.6 * i:.1f} {base - 6 - i * tall * 0.24:.1f}Z"
                for i in range(3)
            )
            canvas.paint(f'<path d="{d}" fill="{tone}"/>')
            x += stream.uniform(15, 24)
    _hills(canvas, stream, width, horizon + 3, 1.5, "#93b77c")
