"""A head as a ball that turns: where a point of the face comes to lie, given as a longitude and a height.

Heads are drawn around (0, 0) in units and moved into the figure by a transform, so they are drawn the same way alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from referencenet.paperdoll.character import Character
from referencenet.paperdoll.palette import HAIR
from referencenet.paperdoll.scene import Expression

RX, RY = 17.0, 16.2
_JAWS = {"round": (0.78, 0.62), "oval": (0.62, 0.42), "square": (0.95, 0.74)}


@dataclass(frozen=True)
class Ball:
    """The turned head: where points of its surface come to lie."""

    yaw: float
    pitch: float

    def at(
        self, longitude: float, height: float, lift: float = 1.0, *, hanging: bool = False
    ) -> tuple[float, float, float]:
        """Place the point at a longitude (degrees from the nose) and a height (units, down): x, y, z; z > 0 in front.

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
        f"M{-x:.2f} 0C{-x:.2f} {-y * k:.2f} {-x * k:.2f} {-y:.2f} 0 {-y:.2f}"
        f"C{x * k:.2f} {-y:.2f} {x:.2f} {-y * k:.2f} {x:.2f} 0"
        f"C{x:.2f} {c:.2f} {j:.2f} {y:.2f} 0 {y:.2f}C{-j:.2f} {y:.2f} {-x:.2f} {c:.2f} {-x:.2f} 0Z"
    )


def ellipse(x: float, y: float, rx: float, ry: float) -> str:
    """Give an ellipse as path data."""
    return f"M{x - rx:.2f} {y:.2f}a{rx:.2f} {ry:.2f} 0 1 0 {2 * rx:.2f} 0a{rx:.2f} {ry:.2f} 0 1 0 {-2 * rx:.2f} 0Z"


def jaw_curve(face: str, share: float) -> tuple[float, float]:
    """Give the point of the left half of a jaw at a share of the way from the ear (0) to the chin (1)."""
    cheek, chin = _JAWS[face]
    points = ((RX, 0.0), (RX, cheek * RY), (chin * RX, RY), (0.0, RY))
    s = 1 - share
    weights = (s**3, 3 * s * s * share, 3 * s * share * share, share**3)
    return sum(w * x for w, (x, _) in zip(weights, points, strict=True)), sum(
        w * y for w, (_, y) in zip(weights, points, strict=True)
    )


def eye_size(depth: float, opening: float) -> tuple[float, float]:
    """Give half width and half height of an eye at a depth (1 in front, 0 at the rim); height 0 if it is shut."""
    return 3.9 * max(0.45, min(1.0, depth * 1.06)), 0.0 if opening < 0.25 else 4.7 * min(1.2, opening)
