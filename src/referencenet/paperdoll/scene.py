"""One picture to be: a character in a pose, with an expression, before a background, seen by a camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from referencenet.paperdoll.character import Character
from referencenet.paperdoll.palette import PLAIN
from referencenet.paperdoll.pose import ARM_POSES, LEG_POSES, Pose
from referencenet.paperdoll.streams import Stream

# smile of -1..1, mouth opening 0..1, brow height, brow slope (positive: inner ends up), eye opening
EXPRESSIONS: dict[str, tuple[float, float, float, float, float]] = {
    "neutral": (0.1, 0.0, 0.0, 0.0, 1.0),
    "smiling": (1.0, 0.0, 0.2, 0.0, 0.95),
    "laughing": (1.0, 0.8, 0.6, 0.1, 0.75),
    "surprised": (0.0, 1.0, 1.6, 0.3, 1.15),
    "sad": (-0.9, 0.0, 0.3, 1.0, 0.8),
    "angry": (-0.7, 0.15, -0.9, -1.0, 0.8),
    "sleepy": (0.05, 0.0, 0.3, 0.2, 0.0),
}
BACKGROUNDS = {
    "plain": 0.34,
    "meadow": 0.09,
    "city": 0.09,
    "beach": 0.08,
    "night": 0.08,
    "snow": 0.08,
    "desert": 0.08,
    "room": 0.08,
    "forest": 0.08,
}
SHOTS = {"full body": 104.0, "upper body": 72.0, "portrait": 50.0}  # height of the picture in units


@dataclass(frozen=True, kw_only=True)
class Expression:
    """What the face does; `name` is what a caption says of it."""

    name: str = "neutral"
    smile: float = 0.1
    mouth: float = 0.0
    mouth_width: float = 1.0
    brow_height: float = 0.0
    brow_slope: float = 0.0
    eyes: float = 1.0
    gaze: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def named(cls, name: str) -> Expression:
        """Give an expression of the table as it stands there."""
        if name not in EXPRESSIONS:
            raise ValueError(f"expression is {name!r}; expected one of {', '.join(sorted(EXPRESSIONS))}")
        smile, mouth, height, slope, eyes = EXPRESSIONS[name]
        return cls(name=name, smile=smile, mouth=mouth, brow_height=height, brow_slope=slope, eyes=eyes)

    @classmethod
    def from_seed(cls, seed: int, *, name: str | None = None) -> Expression:
        """Draw an expression; `name` fixes which."""
        stream = Stream("expression", seed)
        drawn = stream.choice(tuple(EXPRESSIONS))
        base = cls.named(name or drawn)
        return cls(
            name=base.name,
            smile=base.smile + stream.bell(0.15),
            mouth=base.mouth * stream.uniform(0.85, 1.1),
            mouth_width=stream.uniform(0.9, 1.1),
            brow_height=base.brow_height + stream.bell(0.3),
            brow_slope=base.brow_slope + stream.bell(0.15),
            eyes=base.eyes * stream.uniform(0.92, 1.05),
            gaze=(stream.bell(1.0), stream.bell(0.7)),
        )


@dataclass(frozen=True, kw_only=True)
class Background:
    """Where the figure stands; `colour` counts for plain backgrounds only, `seed` moves hills, houses and clouds."""

    name: str = "plain"
    colour: str = "white"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in BACKGROUNDS:
            raise ValueError(f"background is {self.name!r}; expected one of {', '.join(sorted(BACKGROUNDS))}")
        if self.colour not in PLAIN:
            raise ValueError(f"background colour is {self.colour!r}; expected one of {', '.join(sorted(PLAIN))}")

    @classmethod
    def from_seed(cls, seed: int, *, name: str | None = None) -> Background:
        """Draw a background; `name` fixes which."""
        stream = Stream("background", seed)
        drawn, colour = stream.weighted(BACKGROUNDS), stream.choice(tuple(PLAIN))
        return cls(name=name or drawn, colour=colour, seed=int(seed))


@dataclass(frozen=True, kw_only=True)
class Camera:
    """How the figure is framed: `zoom` 1 shows the whole shot, `pan` is in units, `tilt` in degrees."""

    shot: str = "full body"
    zoom: float = 1.0
    pan: tuple[float, float] = (0.0, 0.0)
    tilt: float = 0.0

    def __post_init__(self) -> None:
        if self.shot not in SHOTS:
            raise ValueError(f"shot is {self.shot!r}; expected one of {', '.join(sorted(SHOTS))}")
        if not 0.1 <= self.zoom <= 10:
            raise ValueError(f"zoom is {self.zoom}; expected a number from 0.1 to 10, 1 shows the whole shot")

    @classmethod
    def from_seed(cls, seed: int, *, shot: str | None = None) -> Camera:
        """Draw a framing; `shot` fixes how much of the figure is seen."""
        stream = Stream("camera", seed)
        drawn = stream.weighted({"full body": 0.7, "upper body": 0.18, "portrait": 0.12})
        return cls(
            shot=shot or drawn,
            zoom=stream.uniform(0.96, 1.03),
            pan=(stream.bell(6.0), stream.bell(1.2)),
            tilt=stream.bell(3.0),
        )


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All that a picture shows. `dataclasses.replace` makes the same person in another pose, and so on."""

    character: Character
    pose: Pose = Pose()
    expression: Expression = Expression()
    background: Background = Background()
    camera: Camera = Camera()

    @classmethod
    def from_seeds(cls, character: int, scene: int, **overrides: Any) -> Scene:
        """Draw a scene: who from one seed, all the rest from another.

        Args:
            character: Seed of the character.
            scene: Seed of pose, expression, background and camera, each from a stream of its own.
            **overrides: `pose`, `view`, `expression`, `background` or `shot` as a name of the vocabulary (its jitter
                is still drawn), or `pose`, `expression`, `background`, `camera` as objects, taken as they are.
        """
        known = {"pose", "view", "expression", "background", "shot", "camera"}
        if not overrides.keys() <= known:
            wrong = ", ".join(sorted(overrides.keys() - known))
            raise TypeError(f"unknown override {wrong}; expected some of {', '.join(sorted(known))}")

        def part(key: str, kind: Any, **names: Any) -> Any:
            given = overrides.get(key)
            return given if isinstance(given, kind) else kind.from_seed(scene, **names)

        camera = part("camera", Camera, shot=overrides.get("shot"))
        pose = part("pose", Pose, name=overrides.get("pose"), view=overrides.get("view"))
        if camera.shot != "full body" and not overrides.keys() & {"pose", "view"}:
            pose = _close_pose(scene, pose)
        return cls(
            character=Character.from_seed(character),
            pose=pose,
            expression=part("expression", Expression, name=overrides.get("expression")),
            background=part("background", Background, name=overrides.get("background")),
            camera=camera,
        )


def _close_pose(seed: int, pose: Pose) -> Pose:
    """Change a pose that a close shot would not show: the back of a head, or what only the legs do."""
    view = "front" if pose.view == "back" else pose.view
    name = pose.name if pose.name not in LEG_POSES else Stream("close pose", seed).choice(ARM_POSES)
    return pose if (name, view) == (pose.name, pose.view) else Pose.from_seed(seed, name=name, view=view)
