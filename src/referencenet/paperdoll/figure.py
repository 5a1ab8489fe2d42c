"""The whole figure: trunk, limbs and garments over the joints, sorted by depth, with the head on top."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from referencenet.paperdoll.canvas import Canvas, Point, polyline
from referencenet.paperdoll.cloth import draw_pattern, emblem_path, sleeve_pattern
from referencenet.paperdoll.head import Ball, Head, draw_behind, draw_head
from referencenet.paperdoll.palette import CLOTH, SKIN, outline, shadow
from referencenet.paperdoll.pose import GROUND, Body, body_of, joints
from referencenet.paperdoll.scene import Scene


@dataclass(frozen=True)
class Figure:
    """A scene's character with its joints found: what all drawing functions share."""

    scene: Scene
    joints: dict[str, np.ndarray]
    body: Body
    head: Head

    @classmethod
    def of(cls, scene: Scene) -> Figure:
        """Find the joints and turn the head of a scene."""
        pose = scene.pose
        head = Head(scene.character, scene.expression, Ball(pose.head_yaw, pose.head_pitch))
        return cls(scene, joints(scene.character, pose), body_of(scene.character), head)

    def at(self, joint: str) -> Point:
        """Give a joint in the picture plane, in units."""
        x, y, _ = self.joints[joint]
        return float(x), float(y)

    @property
    def facing(self) -> tuple[float, float]:
        """Sine and cosine of the body's yaw."""
        turn = math.radians(self.scene.pose.yaw)
        return math.sin(turn), math.cos(turn)

    @property
    def skin(self) -> str:
        """The skin colour as `#rrggbb`."""
        return SKIN[self.scene.character.skin]

    @property
    def head_transform(self) -> str:
        """SVG transform that moves the head, drawn around (0, 0), into the figure."""
        x, y = self.at("head")
        return f'transform="translate({x:.2f} {y:.2f}) rotate({self.scene.pose.head_tilt + self.scene.pose.sway:.2f} 0 12)"'


def draw_figure(canvas: Canvas, scene: Scene) -> None:
    """Draw the character of a scene in units, far parts first."""
    figure = Figure.of(scene)
    _ground_shadow(canvas, figure)
    canvas.group(figure.head_transform)
    draw_behind(canvas, figure.head)
    canvas.end()
    arms = sorted(
        ("right", "left"), key=lambda side: figure.joints[f"{side} elbow"][2] + figure.joints[f"{side} wrist"][2]
    )
    legs = sorted(("right", "left"), key=lambda side: figure.joints[f"{side} knee"][2])
    behind = [side for side in arms if _arm_depth(figure, side) < -2.5]
    above = [side for side in arms if side not in behind and _over_head(figure, side)]
    for side in behind:
        _arm(canvas, figure, side)
    for side in legs:
        _leg(canvas, figure, side)
    _hips(canvas, figure)
    canvas.tube([figure.at("neck"), figure.at("head")], 7.2, figure.skin, "neck", "head", cap="butt")
    _trunk(canvas, figure)
    for side in arms:
        if side not in behind and side not in above:
            _arm(canvas, figure, side)
    canvas.group(figure.head_transform)
    draw_head(canvas, figure.head)
    canvas.end()
    for side in above:
        _arm(canvas, figure, side)


def _arm_depth(figure: Figure, side: str) -> float:
    return float(np.mean([figure.joints[f"{side} {joint}"][2] for joint in ("shoulder", "elbow", "wrist")]))


def _over_head(figure: Figure, side: str) -> bool:
    wrist = figure.joints[f"{side} wrist"]
    return bool(wrist[2] > 7.0 and wrist[1] < figure.joints["neck"][1] + 4)


def _ground_shadow(canvas: Canvas, figure: Figure) -> None:
    feet = [figure.at("right ankle")[0], figure.at("left ankle")[0]]
    middle, wide = sum(feet) / 2, abs(feet[0] - feet[1]) / 2 + 11 - 0.4 * figure.scene.pose.lift
    canvas.paint(
        f'<ellipse cx="{middle:.2f}" cy="{GROUND + 1}" rx="{wide:.2f}" ry="3.2" fill="#1b1430" opacity="0.24"/>'
    )


def _toward(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def _arm(canvas: Canvas, figure: Figure, side: str) -> None:
    who = figure.scene.character
    shoulder, elbow, wrist = (figure.at(f"{side} {joint}") for joint in ("shoulder", "elbow", "wrist"))
    width = figure.body.arm_width
    hand = _toward(elbow, wrist, 1.12)
    canvas.tube([shoulder, elbow, wrist], width, figure.skin, f"{side} arm", f"{side} lower arm")
    canvas.label(f"{side} arm", f"{side} upper arm", _core([shoulder, elbow], width + 2.5))
    sleeves = {"tank": [], "t-shirt": [shoulder, _toward(shoulder, elbow, 0.68)]}
    sleeve = sleeves.get(who.upper, [shoulder, elbow, _toward(elbow, wrist, 0.88)])
    canvas.tube([hand], width + 1.1, figure.skin, f"{side} hand", f"{side} hand")
    if not sleeve:
        return
    colour = CLOTH[who.pattern_colour if who.pattern == "two-tone" and who.upper != "jacket" else who.upper_colour]
    wide, cap = width + (2.0 if who.upper in ("hoodie", "jacket") else 1.3), "round"
    canvas.tube(sleeve, wide, colour, "upper garment", f"{side} lower arm", cap=cap)
    canvas.label("upper garment", f"{side} upper arm", _core(sleeve[:2], wide + 2.5))
    sleeve_pattern(canvas, who, sleeve, wide)
    if len(sleeve) == 3:
        cuff = [_toward(elbow, wrist, 0.78), _toward(elbow, wrist, 0.92)]
        canvas.paint(f'<path d="{polyline(cuff)}" stroke="{shadow(colour)}" stroke-width="{wide:.2f}"/>')


def _core(points: list[Point], width: float) -> str:
    return f'<path d="{polyline(points)}" fill="none" stroke="{{0}}" stroke-width="{width:.2f}" stroke-linejoin="round" stroke-linecap="round"/>'


def _leg(canvas: Canvas, figure: Figure, side: str) -> None:
    who = figure.scene.character
    hip, knee, ankle = (figure.at(f"{side} {joint}") for joint in ("hip", "knee", "ankle"))
    width = figure.body.leg_width
    swing = math.radians((figure.scene.pose.right_leg if side == "right" else figure.scene.pose.left_leg)[3])
    sine, cosine = figure.facing
    toe = (ankle[0] + 5.4 * math.cos(swing) * sine, ankle[1] + 0.9 - 4.6 * math.sin(swing) + 0.7 * cosine)
    canvas.tube([hip, knee, ankle], width, figure.skin, f"{side} leg", f"{side} lower leg")
    canvas.label(f"{side} leg", f"{side} upper leg", _core([hip, knee], width + 2.5))
    if who.lower in ("trousers", "shorts"):
        colour = CLOTH[who.lower_colour]
        ends = [hip, knee, _toward(knee, ankle, 0.8)] if who.lower == "trousers" else [hip, _toward(hip, knee, 0.86)]
        wide = width + (1.4 if who.lower == "trousers" else 2.4)
        canvas.tube(
            ends, wide, colour, "lower garment", f"{side} lower leg", cap="round" if who.lower == "trousers" else "butt"
        )
        canvas.label("lower garment", f"{side} upper leg", _core(ends[:2], wide + 2.5))
    shoe = CLOTH[who.shoe_colour]
    canvas.tube([(ankle[0], ankle[1] + 0.4), toe], 6.6, shoe, f"{side} shoe", f"{side} foot")


def _hips(canvas: Canvas, figure: Figure) -> None:
    """The pelvis: trousers and shorts close over it, skirts and dresses hang from it."""
    who = figure.scene.character
    x, y = figure.at("hip")
    half = _half_width(figure, figure.body.hip)
    if who.lower in ("trousers", "shorts"):
        colour = CLOTH[who.lower_colour]
        d = f"M{x - half:.2f} {y - 5:.2f}H{x + half:.2f}L{x + half + 0.4:.2f} {y + 3:.2f}Q{x:.2f} {y + 7.5:.2f} {x - half - 0.4:.2f} {y + 3:.2f}Z"
        canvas.shape(d, colour, "lower garment", "torso", fill=canvas.shade(colour, x - half, x + half, 0.75))
        return
    knees = [figure.at("right knee"), figure.at("left knee")]
    low = max(y + 9.0, max(knee[1] for knee in knees) - 1.0)
    left = min(min(knee[0] for knee in knees) - 5.2, x - half - 3)
    right = max(max(knee[0] for knee in knees) + 5.2, x + half + 3)
    d = (
        f"M{x - half:.2f} {y - 5:.2f}H{x + half:.2f}Q{x + half + 1:.2f} {y + 2:.2f} {right:.2f} {low:.2f}"
        f"Q{(left + right) / 2:.2f} {low + 4.5:.2f} {left:.2f} {low:.2f}Q{x - half - 1:.2f} {y + 2:.2f} {x - half:.2f} {y - 5:.2f}Z"
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


def _half_width(figure: Figure, half: float) -> float:
    sine, cosine = figure.facing
    return math.hypot(half * cosine, 0.74 * half * sine)


def trunk_path(figure: Figure, length: float) -> str:
    """Give the outline of a trunk with its neck at (0, 0) and its hip at (0, length)."""
    body = figure.body
    shoulder, waist, hip = (_half_width(figure, half) for half in (body.shoulder + 2.3, body.waist, body.hip))
    low = length + 2.6
    return (
        f"M-3.6 -1.2Q{-shoulder * 0.8:.2f} -1 {-shoulder:.2f} 3.4Q{-shoulder:.2f} 8 {-waist:.2f} {length * 0.56:.2f}"
        f"Q{-waist - 0.2:.2f} {length * 0.8:.2f} {-hip - 0.8:.2f} {low:.2f}Q0 {low + 2.2:.2f} {hip + 0.8:.2f} {low:.2f}"
        f"Q{waist + 0.2:.2f} {length * 0.8:.2f} {waist:.2f} {length * 0.56:.2f}Q{shoulder:.2f} 8 {shoulder:.2f} 3.4"
        f"Q{shoulder * 0.8:.2f} -1 3.6 -1.2Q0 1.8 -3.6 -1.2Z"
    )


def _trunk(canvas: Canvas, figure: Figure) -> None:
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
        d = f"M{nx - wide:.2f} {low - 2:.2f}Q{nx:.2f} {low + 6.5:.2f} {nx + wide:.2f} {low - 2:.2f}Q{nx + wide:.2f} {low - 7:.2f} {nx:.2f} {low - 7:.2f}Q{nx - wide:.2f} {low - 7:.2f} {nx - wide:.2f} {low - 2:.2f}Z"
        canvas.shape(d, colour, "upper garment", "torso", fill=shadow(colour))


def draw_upper(canvas: Canvas, figure: Figure, length: float) -> None:
    """Draw the upper garment's trunk around its own axis, neck at (0, 0): colour, pattern, emblem and trimmings."""
    who = figure.scene.character
    colour = CLOTH[who.upper_colour]
    sine, cosine = figure.facing
    half = _half_width(figure, figure.body.shoulder + 3)
    d = trunk_path(figure, length)
    canvas.shape(d, colour, "upper garment", "torso", fill=canvas.shade(colour, -half, half, 0.76))
    canvas.group(canvas.clip(d))
    draw_pattern(canvas, who, (-half - 1, -2, half + 1, length + 6))
    bulge = figure.body.waist * 0.78
    if who.upper == "jacket" and cosine > 0.1:
        x, wide = sine * bulge, 3.4 * cosine
        inner = CLOTH[who.emblem_colour]
        canvas.paint(
            f'<path d="M{x - wide * 1.7:.2f} -3L{x - wide:.2f} {length + 8:.2f}H{x + wide:.2f}L{x + wide * 1.7:.2f} -3Z" fill="{inner}" '
            f'stroke="{outline(colour)}" stroke-width="1.3"/>'
        )
    if who.upper == "hoodie" and cosine > 0.1:
        x, wide = sine * bulge, 6.5 * cosine
        canvas.paint(
            f'<path d="M{x - wide * 0.7:.2f} {length * 0.66:.2f}H{x + wide * 0.7:.2f}L{x + wide:.2f} {length:.2f}H{x - wide:.2f}Z" '
            f'fill="{shadow(colour)}" opacity="0.75"/>'
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
        canvas.paint(
            f'<path d="M{-_half_width(figure, figure.body.hip):.2f} {length - 1.4:.2f}H{_half_width(figure, figure.body.hip):.2f}" '
            f'stroke="{outline(colour)}" stroke-width="1.6"/>'
        )


def _emblem(canvas: Canvas, figure: Figure, length: float) -> None:
    who = figure.scene.character
    sine, cosine = figure.facing
    colour = CLOTH[who.emblem_colour]
    x, size = sine * figure.body.waist * 0.78, 6.0 * figure.body.shoulder**0.3 / 2
    canvas.paint(
        f'<path d="{emblem_path(who.emblem)}" fill="{colour}" stroke="{outline(colour)}" stroke-width="{0.9 / size:.3f}" '
        f'stroke-linejoin="round" transform="translate({x:.2f} {length * 0.46:.2f}) scale({size * max(0.4, cosine):.2f} {size:.2f})"/>'
    )
