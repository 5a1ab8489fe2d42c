"""Films: one character in motion, as a list of scenes; dancing from pose to pose, or talking to a voice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from referencenet.paperdoll.character import Character
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.render import Size, render
from referencenet.paperdoll.scene import Background, Camera, Expression, Scene
from referencenet.paperdoll.streams import Stream
from referencenet.paperdoll.voice import SAMPLE_RATE, mouth_track, speech


@dataclass(frozen=True, kw_only=True)
class Film:
    """Scenes in time; a talking film has its sound as (samples,) floats in [-1, 1]."""

    scenes: tuple[Scene, ...]
    fps: int = 25
    audio: np.ndarray | None = None
    sample_rate: int = SAMPLE_RATE

    def __len__(self) -> int:
        return len(self.scenes)

    def frames(self, size: Size = 64) -> Iterator[np.ndarray]:
        """Draw one frame after the other, each (height, width, 3) uint8."""
        return (render(scene, size) for scene in self.scenes)


def between(first: Pose, second: Pose, share: float) -> Pose:
    """Give the pose at a share of the way from one pose to another; name and view are those of the nearer one."""
    near = first if share < 0.5 else second
    values: dict[str, object] = {}
    for field in fields(Pose):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, tuple):
            values[field.name] = tuple(x + (y - x) * share for x, y in zip(a, b, strict=True))
        elif not isinstance(a, str):
            values[field.name] = a + (b - a) * share
    return replace(near, **values)


def dance(
    character: int, film: int, *, num_frames: int = 48, fps: int = 25, background: Background | None = None
) -> Film:
    """Let a character move from pose to pose before one background.

    Args:
        character: Seed of the character.
        film: Seed of everything else.
        num_frames: Length of the film.
        fps: Frames a second.
        background: Where; without it what the seed draws.
    """
    _check_length(num_frames, fps)
    stream = Stream("dance", film)
    beats = [0.0]
    while beats[-1] * fps < num_frames:
        beats.append(beats[-1] + stream.uniform(0.5, 0.9))
    views = [stream.weighted({"front": 0.6, "left": 0.2, "right": 0.2}) for _ in beats]
    poses = [Pose.from_seed(stream.integer(2**31), view=view) for view in views]
    face, camera = Expression.from_seed(film), Camera.from_seed(film, shot="full body")
    background = background or Background.from_seed(film)
    scenes: list[Scene] = []
    for frame in range(num_frames):
        beat = next(i for i in range(len(beats) - 1) if frame / fps < beats[i + 1])
        share = (frame / fps - beats[beat]) / (beats[beat + 1] - beats[beat])
        pose = between(poses[beat], poses[beat + 1], share * share * (3 - 2 * share))
        expression = replace(face, eyes=face.eyes * _blink(film, frame / fps))
        scenes.append(
            Scene(
                character=Character.from_seed(character),
                pose=pose,
                expression=expression,
                background=background,
                camera=camera,
            )
        )
    return Film(scenes=tuple(scenes), fps=fps)


def talk(
    character: int,
    film: int,
    *,
    num_frames: int = 50,
    fps: int = 25,
    audio: np.ndarray | None = None,
    sample_rate: int = SAMPLE_RATE,
    sway: float = 1.0,
) -> Film:
    """Let a character talk: the sound drives the mouth, head and eyes wander.

    Args:
        character: Seed of the character.
        film: Seed of everything else, the voice too.
        num_frames: Length of the film.
        fps: Frames a second.
        audio: (samples,) floats in [-1, 1]; without it the seed's own voice.
        sample_rate: Samples a second of `audio`.
        sway: How far the head turns, nods and tilts, as a share of 14, 5 and 4 degrees; 0 keeps it still.
    """
    _check_length(num_frames, fps)
    if audio is None:
        audio, sample_rate = speech(film, num_frames / fps), SAMPLE_RATE
    base = Scene.from_seeds(character, film, shot="portrait", pose=_listening(film), expression="neutral")
    track = mouth_track(audio, sample_rate, fps, num_frames)
    stream = Stream("talk", film)
    sways = [(stream.uniform(0.15, 0.5), stream.uniform(0, 2 * math.pi)) for _ in range(4)]
    scenes: list[Scene] = []
    for frame, (opening, width) in enumerate(track.tolist()):
        turn, nod, tilt, gaze = (math.sin(2 * math.pi * speed * frame / fps + start) for speed, start in sways)
        pose = replace(base.pose, head_turn=14 * sway * turn, head_pitch=5 * sway * nod, head_tilt=4 * sway * tilt)
        expression = replace(
            base.expression,
            mouth=opening,
            mouth_width=width,
            eyes=base.expression.eyes * _blink(film, frame / fps),
            gaze=(0.8 * gaze, 0.0),
        )
        scenes.append(replace(base, pose=pose, expression=expression))
    return Film(scenes=tuple(scenes), fps=fps, audio=audio, sample_rate=sample_rate)


def _listening(film: int) -> Pose:
    name = Stream("talk pose", film).choice(("standing", "arms crossed"))
    return replace(Pose.from_seed(film, name=name, view="front"), yaw=0.0)


def _blink(film: int, time: float) -> float:
    """Give how open the eyes are at a time: they shut for an eighth of a second every three seconds or so."""
    start = Stream("blink", film).uniform(0.4, 3.0)
    return 0.0 if (time - start) % 3.1 < 0.125 and time >= start else 1.0


def _check_length(num_frames: int, fps: int) -> None:
    if num_frames < 1 or fps < 1:
        raise ValueError(f"num_frames is {num_frames} and fps {fps}; expected at least 1 of each")
