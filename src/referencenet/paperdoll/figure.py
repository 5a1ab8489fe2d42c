"""A scene's character with its joints found: what everything that draws or measures a body shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from referencenet.paperdoll.ball import Ball, Head
from referencenet.paperdoll.canvas import Point
from referencenet.paperdoll.palette import SKIN
from referencenet.paperdoll.pose import Body, body_of, joints
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
        tilt = self.scene.pose.head_tilt + self.scene.pose.sway
        return f'transform="translate({x:.2f} {y:.2f}) rotate({tilt:.2f} 0 12)"'


def half_width(figure: Figure, half: float) -> float:
    """Give half the width at which a trunk appears that is `half` wide from the front, turned by the body's yaw."""
    sine, cosine = figure.facing
    return math.hypot(half * cosine, 0.74 * half * sine)


def toward(a: Point, b: Point, share: float) -> Point:
    """Give the point at a share of the way from a to b."""
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share
