"""Surfaces in painter's order, kept as SVG for the picture and as flat shapes for exact annotations.

Whoever draws says two things at once: what a surface looks like (`paint`) and which part it is (`label`). The picture
is rendered from the first list with anti-aliasing, the maps from the second without, so that both agree by make.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import resvg_py
from PIL import Image

from referencenet.paperdoll.palette import light, outline, shadow

LINE = 1.25  # width of the dark line around surfaces, in units
Point = tuple[float, float]


@dataclass(frozen=True)
class Surface:
    """One flat shape: its part, the body part under it, and SVG that takes a colour as `{}`."""

    part: str
    body: str
    svg: str


@dataclass
class Canvas:
    """What has been drawn so far; `annotate=False` keeps only the picture."""

    annotate: bool = False
    painted: list[str] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)
    num_clips: int = 0

    def paint(self, svg: str) -> None:
        """Add SVG to the picture."""
        self.painted.append(svg)

    def group(self, attributes: str) -> None:
        """Open a group (a transform or a clip) in the picture and the maps."""
        self.painted.append(f"<g {attributes}>")
        if self.annotate:
            self.surfaces.append(Surface("", "", f"<g {attributes}>"))

    def end(self) -> None:
        """Close the group."""
        self.painted.append("</g>")
        if self.annotate:
            self.surfaces.append(Surface("", "", "</g>"))

    def label(self, part: str, body: str, svg: str) -> None:
        """Add a flat shape to the maps; `{}` in `svg` is its colour."""
        if self.annotate:
            self.surfaces.append(Surface(part, body, svg))

    def shape(self, d: str, colour: str, part: str, body: str, *, fill: str = "", line: float = LINE) -> None:
        """Draw a closed path with its outline. `fill` may name a gradient; `colour` still gives the outline."""
        self.paint(
            f'<path d="{d}" fill="{fill or colour}" stroke="{outline(colour)}" stroke-width="{2 * line:.2f}" '
            'stroke-linejoin="round" paint-order="stroke"/>'
        )
        self.label(
            part,
            body,
            f'<path d="{d}" fill="{{0}}" stroke="{{0}}" stroke-width="{2 * line:.2f}" stroke-linejoin="round"/>',
        )

    def tube(
        self, points: Iterable[Point], width: float, colour: str, part: str, body: str, *, cap: str = "round"
    ) -> None:
        """Draw a bent tube with a lit and a shadowed side: sleeves, legs, hands (a tube of one point)."""
        d = polyline(points)
        common = f'fill="none" stroke-linejoin="round" stroke-linecap="{cap}"'
        self.paint(
            f'<path d="{d}" stroke="{outline(colour)}" stroke-width="{width + 2 * LINE:.2f}" {common}/>'
            f'<path d="{d}" stroke="{shadow(colour)}" stroke-width="{width:.2f}" {common}/>'
            f'<path d="{d}" stroke="{colour}" stroke-width="{width * 0.7:.2f}" {common} '
            f'transform="translate({-width * 0.15:.2f} 0)"/>'
        )
        self.label(part, body, f'<path d="{d}" stroke="{{0}}" stroke-width="{width + 2 * LINE:.2f}" {common}/>')

    def clip(self, d: str) -> str:
        """Define a clip path and give the attribute that uses it."""
        self.num_clips += 1
        definition = f'<clipPath id="c{self.num_clips}"><path d="{d}"/></clipPath>'
        self.painted.append(definition)
        if self.annotate:
            self.surfaces.append(Surface("", "", definition))
        return f'clip-path="url(#c{self.num_clips})"'

    def shade(self, colour: str, x0: float, x1: float, edge: float = 0.68) -> str:
        """Define a fill with light at the left and one shadow tone at the right, and give its reference."""
        self.num_clips += 1
        stops = ((0.0, light(colour)), (0.3, colour), (edge - 0.05, colour), (edge + 0.05, shadow(colour)))
        svg = "".join(f'<stop offset="{at:.2f}" stop-color="{tone}"/>' for at, tone in stops)
        self.painted.append(
            f'<linearGradient id="c{self.num_clips}" gradientUnits="userSpaceOnUse" x1="{x0:.2f}" y1="0" x2="{x1:.2f}" '
            f'y2="{(x1 - x0) * 0.35:.2f}">{svg}</linearGradient>'
        )
        return f"url(#c{self.num_clips})"


def polyline(points: Iterable[Point]) -> str:
    """Write points as path data; a single point becomes a line too short to see, whose caps make a disc."""
    pairs = [f"{x:.2f} {y:.2f}" for x, y in points]
    if len(pairs) == 1:
        return f"M{pairs[0]}h0.01"
    return "M" + "L".join(pairs)


def smooth(points: list[Point], *, closed: bool = False) -> str:
    """Write a smooth curve through points (Catmull-Rom as Bezier curves) as path data."""
    last = len(points) - 1
    d = f"M{points[0][0]:.2f} {points[0][1]:.2f}"
    for i in range(last + (1 if closed else 0)):
        before = points[i - 1] if i or closed else points[0]
        a, b = points[i], points[(i + 1) % len(points)]
        after = points[(i + 2) % len(points)] if closed or i + 2 <= last else points[last]
        d += (
            f"C{a[0] + (b[0] - before[0]) / 6:.2f} {a[1] + (b[1] - before[1]) / 6:.2f} "
            f"{b[0] - (after[0] - a[0]) / 6:.2f} {b[1] - (after[1] - a[1]) / 6:.2f} {b[0]:.2f} {b[1]:.2f}"
        )
    return d + ("Z" if closed else "")


def rasterize(svg: str, width: int, height: int, *, crisp: bool = False) -> np.ndarray:
    """Render SVG text of the given pixel size.

    Returns:
        (height, width, 3) uint8.
    """
    data = resvg_py.svg_to_bytes(
        svg_string=svg,
        skip_system_fonts=True,
        width=width,
        height=height,
        shape_rendering="crisp_edges" if crisp else "geometric_precision",
    )
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
