"""The whole figure, sorted by depth: limbs, trunk and garments, with the head on top."""

from __future__ import annotations

import math

import numpy as np

from referencenet.paperdoll.canvas import Canvas
from referencenet.paperdoll.figure import Figure, toward
from referencenet.paperdoll.garments import core, draw_hips, draw_sleeve, draw_trunk
from referencenet.paperdoll.head import draw_behind, draw_head
from referencenet.paperdoll.palette import CLOTH
from referencenet.paperdoll.pose import GROUND
from referencenet.paperdoll.scene import Scene


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
    draw_hips(canvas, figure)
    canvas.tube([figure.at("neck"), figure.at("head")], 7.2, figure.skin, "neck", "head", cap="butt")
    draw_trunk(canvas, figure)
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


def _arm(canvas: Canvas, figure: Figure, side: str) -> None:
    shoulder, elbow, wrist = (figure.at(f"{side} {joint}") for joint in ("shoulder", "elbow", "wrist"))
    width = figure.body.arm_width
    canvas.tube([shoulder, elbow, wrist], width, figure.skin, f"{side} arm", f"{side} lower arm")
    canvas.label(f"{side} arm", f"{side} upper arm", core([shoulder, elbow], width))
    canvas.tube([toward(elbow, wrist, 1.12)], width + 1.1, figure.skin, f"{side} hand", f"{side} hand")
    draw_sleeve(canvas, figure, side)


def _leg(canvas: Canvas, figure: Figure, side: str) -> None:
    who = figure.scene.character
    hip, knee, ankle = (figure.at(f"{side} {joint}") for joint in ("hip", "knee", "ankle"))
    width = figure.body.leg_width
    swing = math.radians((figure.scene.pose.right_leg if side == "right" else figure.scene.pose.left_leg)[3])
    sine, cosine = figure.facing
    toe = (ankle[0] + 5.4 * math.cos(swing) * sine, ankle[1] + 0.9 - 4.6 * math.sin(swing) + 0.7 * cosine)
    canvas.tube([hip, knee, ankle], width, figure.skin, f"{side} leg", f"{side} lower leg")
    canvas.label(f"{side} leg", f"{side} upper leg", core([hip, knee], width))
    if who.lower in ("trousers", "shorts"):
        colour = CLOTH[who.lower_colour]
        long = who.lower == "trousers"
        ends = [hip, knee, toward(knee, ankle, 0.8)] if long else [hip, toward(hip, knee, 0.86)]
        wide, cap = (width + 1.4, "round") if long else (width + 2.4, "butt")
        canvas.tube(ends, wide, colour, "lower garment", f"{side} lower leg", cap=cap)
        canvas.label("lower garment", f"{side} upper leg", core(ends[:2], wide, cap))
    shoe = CLOTH[who.shoe_colour]
    canvas.tube([(ankle[0], ankle[1] + 0.4), toe], 6.6, shoe, f"{side} shoe", f"{side} foot")
