"""Garments on a figure: trunk, hips, skirts, sleeves, emblems and trimmings."""

from __future__ import annotations

import math

from referencenet.paperdoll.canvas import LINE, Canvas, Point, polyline
from referencenet.paperdoll.cloth import draw_pattern, emblem_path, sleeve_pattern
from referencenet.paperdoll.figure import Figure, half_width, toward
from referencenet.paperdoll.palette import CLOTH, outline, shadow


def core(points: list[Point], width: float, cap: str = "round") -> str:
    """Give the silhouette, with its line, of a tube of this width, for the maps."""
    return (
        f'<path d="{polyline(points)}" fill="none" stroke="{{0}}" stroke-width="{width + 2 * LINE:.2f}" '
        f'stroke-linejoin="round" stroke-linecap="{cap}"/>'
    )


def draw_hips(canvas: Canvas, figure: Figure) -> None:
    """The pelvis: trousers and shorts close over it, skirts and dresses hang from it."""
    who = figure.scene.character
    x, y = figure.at("hip")
    half = half_width(figure, figure.body.hip)
    if who.lower in ("trousers", "shorts"):
        colour = CLOTH[who.lower_colour]
        d = (
            f"M{x - half:.2f} {y - 5:.2f}H{x + half:.2f}L{x + half + 0.4:.2f} {y + 3:.2f}"
            f"Q{x:.2f} {y + 7.5:.2f} {x - half - 0.4:.2f} {y + 3:.2f}Z"
        )
        canvas.shape(d, colour, "lower garment", "torso", fill=canvas.shade(colour, x - half, x + half, 0.75))
        return
    knees = [figure.at("right knee"), figure.at("left knee")]
    low = max(y + 9.0, max(knee[1] for knee in knees) - 1.0)
    left = min(min(knee[0] for knee in knees) - 5.2, x - half - 3)
    right = max(max(knee[0] for knee in knees) + 5.2, x + half + 3)
    d = (
        f"M{x - half:.2f} {y - 5:.2f}H{x + half:.2f}Q{x + half + 1:.2f} {y + 2:.2f} {right:.2f} {low:.2f}"
        f"Q{(left + right) / 2:.2f} {low + 4.5:.2f} {left:.2f} {low:.2f}"
        f"Q{x - half - 1:.2f} {y + 2:.2f} {x - half:.2f} {y - 5:.2f}Z"
    )
    dress = who.lower == "dress"
    colour = CLOTH[who.upper_colour if dress else who.lower_colour]
    if dress and who.pattern == "two-tone":
        colour = CLOTH[who.pattern_colour]
    canvas.shape(
        d, colour, "upper garment" if dress else "lower garment", "torso", fill=canvas.shade(colour, left, right, 0.7)
    )
    canvas.group(canvas.clip(d))
    if dress and who.pattern != "two-tone":
        draw_pattern(canvas, who, (left, y - 6, right, low + 5))
    elif not dress:
        folds = "".join(
            f"M{x + half * t:.2f} {y:.2f}L{x + (right - x) * t * 1.1:.2f} {low + 5:.2f}" for t in (-0.45, 0.1, 0.6)
        )
        canvas.paint(f'<path d="{folds}" stroke="{shadow(colour)}" stroke-width="1.2" fill="none"/>')
    canvas.end()


def trunk_path(figure: Figure, length: float) -> str:
    """Give the outline of a trunk with its neck at (0, 0) and its hip at (0, length)."""
    body = figure.body
    shoulder, waist, hip = (half_width(figure, half) for half in (body.shoulder + 2.3, body.waist, body.hip))
    low = length + 2.6
    return (
        f"M-3.6 -1.2Q{-shoulder * 0.8:.2f} -1 {-shoulder:.2f} 3.4Q{-shoulder:.2f} 8 {-waist:.2f} {length * 0.56:.2f}"
        f"Q{-waist - 0.2:.2f} {length * 0.8:.2f} {-hip - 0.8:.2f} {low:.2f}Q0 {low + 2.2:.2f} {hip + 0.8:.2f} {low:.2f}"
        f"Q{waist + 0.2:.2f} {length * 0.8:.2f} {waist:.2f} {length * 0.56:.2f}Q{shoulder:.2f} 8 {shoulder:.2f} 3.4"
        f"Q{shoulder * 0.8:.2f} -1 3.6 -1.2Q0 1.8 -3.6 -1.2Z"
    )


def draw_trunk(canvas: Canvas, figure: Figure) -> None:
    """Draw the upper garment on the trunk, with the hood that lies on the shoulders."""
    who = figure.scene.character
    (nx, ny), (hx, hy) = figure.at("neck"), figure.at("hip")
    length = math.hypot(hx - nx, hy - ny)
    dx, dy = (hx - nx) / length, (hy - ny) / length
    canvas.group(f'transform="matrix({dy:.4f} {-dx:.4f} {dx:.4f} {dy:.4f} {nx:.2f} {ny:.2f})"')
    draw_upper(canvas, figure, length)
    canvas.end()
    if who.upper == "hoodie":
        colour = CLOTH[who.upper_colour]
        wide, low = (11.5, ny + 1.2) if figure.facing[1] > -0.3 else (9.5, ny + 4.5)
        d = (
            f"M{nx - wide:.2f} {low - 2:.2f}Q{nx:.2f} {low + 6.5:.2f} {nx + wide:.2f} {low - 2:.2f}"
            f"Q{nx + wide:.2f} {low - 7:.2f} {nx:.2f} {low - 7:.2f}"
            f"Q{nx - wide:.2f} {low - 7:.2f} {nx - wide:.2f} {low - 2:.2f}Z"
        )
        canvas.shape(d, colour, "upper garment", "torso", fill=shadow(colour))


def draw_upper(canvas: Canvas, figure: Figure, length: float) -> None:
    """Draw the upper garment's trunk around its own axis, neck at (0, 0): colour, pattern, emblem and trimmings."""
    who = figure.scene.character
    colour = CLOTH[who.upper_colour]
    sine, cosine = figure.facing
    half = half_width(figure, figure.body.shoulder + 3)
    d = trunk_path(figure, length)
    canvas.shape(d, colour, "upper garment", "torso", fill=canvas.shade(colour, -half, half, 0.76))
    canvas.group(canvas.clip(d))
    draw_pattern(canvas, who, (-half - 1, -2, half + 1, length + 6))
    bulge = figure.body.waist * 0.78
    if who.upper == "jacket" and cosine > 0.1:
        x, wide = sine * bulge, 3.4 * cosine
        inner = CLOTH[who.emblem_colour]
        canvas.paint(
            f'<path d="M{x - wide * 1.7:.2f} -3L{x - wide:.2f} {length + 8:.2f}H{x + wide:.2f}'
            f'L{x + wide * 1.7:.2f} -3Z" fill="{inner}" stroke="{outline(colour)}" stroke-width="1.3"/>'
        )
    if who.upper == "hoodie" and cosine > 0.1:
        x, wide = sine * bulge, 6.5 * cosine
        canvas.paint(
            f'<path d="M{x - wide * 0.7:.2f} {length * 0.66:.2f}H{x + wide * 0.7:.2f}L{x + wide:.2f} {length:.2f}'
            f'H{x - wide:.2f}Z" fill="{shadow(colour)}" opacity="0.75"/>'
        )
    if who.upper in ("t-shirt", "sweater", "tank"):
        canvas.paint(f'<path d="M-5.4 -2.4Q0 5.4 5.4 -2.4" fill="none" stroke="{shadow(colour)}" stroke-width="1.8"/>')
    canvas.paint(
        f'<path d="M{half * 0.55:.2f} 0h{half:.2f}v{length + 8:.2f}h{-half:.2f}Z" fill="#2b1d5e" opacity="0.16"/>'
    )
    if who.emblem != "none" and cosine > 0.15:
        _emblem(canvas, figure, length)
    canvas.end()
    if who.lower == "dress":
        hip = half_width(figure, figure.body.hip)
        canvas.paint(
            f'<path d="M{-hip:.2f} {length - 1.4:.2f}H{hip:.2f}" stroke="{outline(colour)}" stroke-width="1.6"/>'
        )


def _emblem(canvas: Canvas, figure: Figure, length: float) -> None:
    who = figure.scene.character
    sine, cosine = figure.facing
    colour = CLOTH[who.emblem_colour]
    x, size = sine * figure.body.waist * 0.78, 8.0 * figure.body.shoulder**0.3 / 2
    canvas.paint(
        f'<path d="{emblem_path(who.emblem)}" fill="{colour}" stroke="{outline(colour)}" '
        f'stroke-width="{0.9 / size:.3f}" stroke-linejoin="round" transform="translate({x:.2f} {length * 0.46:.2f}) '
        f'scale({size * max(0.4, cosine):.2f} {size:.2f})"/>'
    )


def draw_sleeve(canvas: Canvas, figure: Figure, side: str) -> None:
    """Draw the sleeve of the upper garment, if it has one."""
    who = figure.scene.character
    if who.upper == "tank":
        return
    shoulder, elbow, wrist = (figure.at(f"{side} {joint}") for joint in ("shoulder", "elbow", "wrist"))
    short = who.upper == "t-shirt"
    sleeve = [shoulder, toward(shoulder, elbow, 0.68)] if short else [shoulder, elbow, toward(elbow, wrist, 0.88)]
    colour = CLOTH[who.pattern_colour if who.pattern == "two-tone" and who.upper != "jacket" else who.upper_colour]
    wide = figure.body.arm_width + (2.0 if who.upper in ("hoodie", "jacket") else 1.3)
    canvas.tube(sleeve, wide, colour, "upper garment", f"{side} lower arm")
    canvas.label("upper garment", f"{side} upper arm", core(sleeve[:2], wide))
    sleeve_pattern(canvas, who, sleeve, wide)
    if not short:
        cuff = [toward(elbow, wrist, 0.78), toward(elbow, wrist, 0.92)]
        canvas.paint(f'<path d="{polyline(cuff)}" stroke="{shadow(colour)}" stroke-width="{wide:.2f}"/>')
