"""How a body stands: joint angles of named poses, and the joints in space that follow from them.

A limb segment has two angles in degrees: `spread` away from the middle of the body, in the plane of the chest, and
`swing` forwards. Both 0 is hanging straight down. Joints are found in three dimensions (x right, y down, z to the
viewer) in units of about a hundredth of a figure's height and turned by the body's yaw; the picture leaves z away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from referencenet.paperdoll.character import Character
from referencenet.paperdoll.streams import Stream

Limb = tuple[float, float, float, float]  # spread and swing of the upper segment, spread and swing of the lower one
GROUND = 98.0
JOINTS = (
    "neck",
    "hip",
    "head",
    "right shoulder",
    "right elbow",
    "right wrist",
    "left shoulder",
    "left elbow",
    "left wrist",
    "right hip",
    "right knee",
    "right ankle",
    "left hip",
    "left knee",
    "left ankle",
)
# right arm, left arm, right leg, left leg, lift over the ground, lean forwards; the jitter keeps each pose's name true.
POSES: dict[str, tuple[Limb, Limb, Limb, Limb, float, float]] = {
    "standing": ((16, 0, 8, 6), (16, 0, 8, 6), (5, 0, 3, 0), (5, 0, 3, 0), 0, 0),
    "arms raised": ((124, 0, 152, 0), (124, 0, 152, 0), (8, 0, 6, 0), (8, 0, 6, 0), 0, 0),
    "waving": ((98, 0, 164, 0), (16, 0, 8, 8), (6, 0, 4, 0), (6, 0, 4, 0), 0, 0),
    "hands on hips": ((52, -8, -52, 14), (52, -8, -52, 14), (10, 0, 8, 0), (10, 0, 8, 0), 0, 0),
    "walking": ((14, 32, 10, 52), (14, -32, 10, -14), (4, -26, 3, -46), (4, 28, 3, 14), 0, 3),
    "running": ((16, 52, -8, 128), (18, -58, 10, 26), (6, -34, 4, -96), (6, 64, 4, -14), 5, 12),
    "jumping": ((112, 0, 134, 0), (112, 0, 134, 0), (30, 12, 8, -58), (30, 12, 8, -58), 8, 0),
    "crouching": ((34, 30, -10, 70), (34, 30, -10, 70), (46, 62, 2, -26), (46, 62, 2, -26), 0, 10),
    "t-pose": ((90, 0, 90, 0), (90, 0, 90, 0), (6, 0, 4, 0), (6, 0, 4, 0), 0, 0),
    "pointing": ((86, 8, 90, 6), (18, 0, 8, 8), (6, 0, 4, 0), (8, 0, 6, 0), 0, 0),
    "dancing": ((128, 0, 152, 0), (64, 0, 24, 0), (6, 0, 2, 0), (34, 10, -6, -34), 0, 0),
    "kicking": ((62, 0, 84, 0), (74, 0, 56, 0), (6, 0, 4, 0), (62, 14, 66, 8), 0, -4),
    "arms crossed": ((24, 16, -80, 40), (24, 16, -80, 40), (7, 0, 5, 0), (7, 0, 5, 0), 0, 0),
    "flexing": ((82, 0, 174, 0), (82, 0, 174, 0), (10, 0, 8, 0), (10, 0, 8, 0), 0, 0),
}
LEG_POSES = ("walking", "running", "jumping", "crouching", "dancing", "kicking")
ARM_POSES = tuple(name for name in POSES if name not in LEG_POSES)
VIEWS = {"front": 0.0, "left": -42.0, "right": 42.0, "back": 180.0}


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Joint angles of one figure; `name` and `view` are what a caption says of it."""

    name: str = "standing"
    right_arm: Limb = POSES["standing"][0]
    left_arm: Limb = POSES["standing"][1]
    right_leg: Limb = POSES["standing"][2]
    left_leg: Limb = POSES["standing"][3]
    lift: float = 0.0
    lean: float = 0.0
    sway: float = 0.0
    view: str = "front"
    yaw: float = 0.0
    head_turn: float = 0.0
    head_pitch: float = 0.0
    head_tilt: float = 0.0

    @property
    def head_yaw(self) -> float:
        """Where the head looks: degrees from the viewer, positive to the right of the picture."""
        return self.yaw + self.head_turn

    @classmethod
    def named(cls, name: str, view: str = "front", *, mirrored: bool = False) -> Pose:
        """Give a pose of the table without jitter, seen from one of four sides."""
        if name not in POSES:
            raise ValueError(f"pose is {name!r}; expected one of {', '.join(sorted(POSES))}")
        if view not in VIEWS:
            raise ValueError(f"view is {view!r}; expected one of {', '.join(VIEWS)}")
        right_arm, left_arm, right_leg, left_leg, lift, lean = POSES[name]
        if mirrored:
            right_arm, left_arm, right_leg, left_leg = left_arm, right_arm, left_leg, right_leg
        return cls(
            name=name,
            right_arm=right_arm,
            left_arm=left_arm,
            right_leg=right_leg,
            left_leg=left_leg,
            lift=lift,
            lean=lean,
            view=view,
            yaw=VIEWS[view],
        )

    @classmethod
    def from_seed(cls, seed: int, *, name: str | None = None, view: str | None = None) -> Pose:
        """Draw a pose with its jitter; `name` and `view` fix what would be drawn."""
        stream = Stream("pose", seed)
        drawn_name, mirrored = stream.choice(tuple(POSES)), stream.chance(0.5)
        name = name or drawn_name
        sideways = 0.46 if name in ("walking", "running") else 0.18
        drawn_view = stream.weighted({"front": 0.95 - 2 * sideways, "left": sideways, "right": sideways, "back": 0.05})
        pose = cls.named(name, view or drawn_view, mirrored=mirrored)
        return jitter(pose, Stream("pose jitter", seed))


def jitter(pose: Pose, stream: Stream, amount: float = 1.0) -> Pose:
    """Move every angle a little; the pose keeps its name."""

    def limb(angles: Limb, width: float) -> Limb:
        first, second, third, fourth = (angle + stream.bell(width * amount) for angle in angles)
        return first, second, third, fourth

    return replace(
        pose,
        right_arm=limb(pose.right_arm, 11),
        left_arm=limb(pose.left_arm, 11),
        right_leg=limb(pose.right_leg, 6),
        left_leg=limb(pose.left_leg, 6),
        lift=pose.lift * stream.uniform(0.8, 1.2),
        lean=pose.lean + stream.bell(3 * amount),
        sway=stream.bell(5 * amount),
        yaw=pose.yaw + stream.bell(14 * amount),
        head_turn=stream.bell(24 * amount),
        head_pitch=stream.bell(12 * amount),
        head_tilt=stream.bell(9 * amount),
    )


@dataclass(frozen=True, kw_only=True)
class Body:
    """Lengths and widths of a build, in units."""

    shoulder: float
    waist: float
    hip: float
    arm: float
    leg: float
    arm_width: float
    leg_width: float
    trunk: float


def body_of(character: Character) -> Body:
    """Give the measures of a character's build and height."""
    width = {"slim": 0.84, "medium": 1.0, "broad": 1.24}[character.build]
    length = {"short": 0.84, "middle": 1.0, "tall": 1.13}[character.height]
    return Body(
        shoulder=10.6 * width,
        waist=9.8 * width**1.2,
        hip=9.8 * width,
        arm=13.6 * (0.5 + 0.5 * length),
        leg=12.6 * length,
        arm_width=7.0 * width**0.8,
        leg_width=8.4 * width**0.8,
        trunk=24.5 * (0.4 + 0.6 * length),
    )


def _segment(side: float, spread: float, swing: float, length: float) -> np.ndarray:
    a, b = math.radians(spread), math.radians(swing)
    return length * np.array((side * math.sin(a), math.cos(a) * math.cos(b), math.cos(a) * math.sin(b)))


def joints(character: Character, pose: Pose) -> dict[str, np.ndarray]:
    """Find the joints of a figure standing on the ground at x = 0.

    Returns:
        For every name of `JOINTS` an array (3,): x right, y down, z towards the viewer, in units; the ground is at
        `GROUND`.
    """
    body = body_of(character)
    lean, sway = math.radians(pose.lean), math.radians(pose.sway)
    up = np.array((math.sin(sway), -math.cos(lean) * math.cos(sway), math.sin(lean)))
    across = np.array((math.cos(sway), math.sin(sway), 0.0))
    found = {"hip": np.zeros(3), "neck": up * body.trunk}
    found["head"] = found["neck"] + up * 14.5
    # On a picture seen from the front, the right of a person is at the left.
    for side, name, arm, leg in (
        (-1.0, "right", pose.right_arm, pose.right_leg),
        (1.0, "left", pose.left_arm, pose.left_leg),
    ):
        shoulder = found["neck"] + across * side * body.shoulder - up * 2.6
        elbow = shoulder + _segment(side, arm[0], arm[1], body.arm)
        hip = np.array((side * body.hip * 0.52, 1.0, 0.0))
        knee = hip + _segment(side, leg[0], leg[1], body.leg)
        found |= {
            f"{name} shoulder": shoulder,
            f"{name} elbow": elbow,
            f"{name} wrist": elbow + _segment(side, arm[2], arm[3], body.arm),
            f"{name} hip": hip,
            f"{name} knee": knee,
            f"{name} ankle": knee + _segment(side, leg[2], leg[3], body.leg),
        }
    lowest = max(found["right ankle"][1], found["left ankle"][1])
    shift = np.array((0.0, GROUND - 3.0 - pose.lift - lowest, 0.0))
    turn = math.radians(pose.yaw)
    rotation = np.array(((math.cos(turn), 0, math.sin(turn)), (0, 1, 0), (-math.sin(turn), 0, math.cos(turn))))
    return {name: rotation @ found[name] + shift for name in JOINTS}
