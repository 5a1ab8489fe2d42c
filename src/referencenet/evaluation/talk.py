"""Talking: portraits of the test split say what a voice says; the truth is the film whose mouth the voice opens.

Heads keep still in the truth, since the sound does not tell how they move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from referencenet.evaluation.films import OF_CHANGES, OF_FRAMES, films_of, frame_scores
from referencenet.evaluation.looking import look
from referencenet.evaluation.scores import correlation, frame_error, lag_of, mouth_opening
from referencenet.evaluation.task import Drawing, Measure, Task, unseen
from referencenet.networks.observer import Observer
from referencenet.paperdoll.film import Film, talk
from referencenet.paperdoll.maps import grown, lip_mask
from referencenet.paperdoll.portrait_layouts import head_masks
from referencenet.paperdoll.render import Size, render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.streams import Stream
from referencenet.preprocess.face_regions import FaceRegions
from referencenet.preprocess.portrait import Portrait

FRAMES = 32
"""Of a film of 25 a second."""
REACH = 3
"""Pixels by which a mouth is looked for beside its true place: no sound tells how a head moves."""


class Talking(Task):
    """A portrait with its mouth closed, and a voice."""

    name = "talk"
    measures = (
        *OF_FRAMES,
        Measure(name="correlation", told="of the mouth's opening with the voice's", better="more", aim=0.6),
        Measure(name="lag", told="frames by which the mouth is off, without its sign", better="less", aim=1.0),
        OF_CHANGES,
    )

    def rendered(self) -> np.ndarray:
        """(n, f, H, W, 3)."""
        people = unseen(self.number, self.seed)
        seeds = [Stream(f"benchmark talk {character}", self.seed).integer(2**31) for character in people]
        self.films = [talk(*pair, num_frames=FRAMES, sway=0.0) for pair in zip(people, seeds, strict=True)]
        self.shown = [with_mouth(film.scenes[0], 0.0) for film in self.films]
        self.portraits = [portrait_of(scene, self.size, self.observer) for scene in self.shown]
        self.voices = [np.array([scene.expression.mouth for scene in film.scenes]) for film in self.films]
        self.mouths = [_mouths(film, self.size) for film in self.films]
        return np.stack([np.stack(list(film.frames(self.size))) for film in self.films])  # pyright: ignore[reportArgumentType]

    def given(self, case: int, frame: int = 0) -> list[np.ndarray]:  # noqa: ARG002 - a voice is no picture
        """The portrait."""
        return [np.asarray(self.portraits[case].picture)]

    def draw(self, pipe: Any, drawing: Drawing, *, wrong: bool = False) -> np.ndarray:
        """The films, each in one call, by the model of speech that belongs to the system."""

        def film(case: int) -> Any:
            sound, portrait = self.films[case].audio, self.portraits[self.other(case) if wrong else case]
            options = drawing.options(self.size) | {"num_frames": FRAMES}
            heard = pipe.hear(sound, drawing.speech)
            return pipe(portrait, heard, output_type="np", generator=drawing.noise(case), **options)

        return films_of(film, self.number, drawing.drawn)

    def scores(self, pictures: np.ndarray) -> dict[str, float]:
        """Of mouths, of who is seen, and of all pixels."""
        tracks = [mouth_opening(film, *mouths, REACH) for film, mouths in zip(pictures, self.mouths, strict=True)]
        both = list(zip(tracks, self.voices, strict=True))
        shown = np.stack([np.asarray(portrait.picture) for portrait in self.portraits])
        mouths = {
            "correlation": float(np.mean([correlation(*pair) for pair in both])),
            "lag": float(np.mean([abs(lag_of(*pair)) for pair in both])),
        }
        scores, _ = frame_scores(pictures, self.truth, shown, self.observer)
        return mouths | scores | {"frame_error": frame_error(pictures, self.truth)}


def portrait_of(scene: Scene, size: Size, observer: Observer) -> Portrait:
    """A drawn portrait with what is known of its face: its regions, and the observer's embedding.

    The lips' region is where a mouth may be, closed and wide open, as in training, where it is that of a whole film.
    """
    picture, mouths = render(scene, size), [with_mouth(scene, opening) for opening in (0.0, 1.0)]
    masks = head_masks(mouths, size if isinstance(size, tuple) else (size, size))
    levels = {name: mask.astype(np.uint8) * 255 for name, mask in masks.items()}
    regions = FaceRegions(
        place=levels["face_mask"],
        pose=levels["sep_pose_mask"],
        face=levels["sep_face_mask"],
        lip=levels["sep_lip_mask"],
    )
    return Portrait(picture=Image.fromarray(picture), regions=regions, face=look(observer, picture[None]).embeddings)


def with_mouth(scene: Scene, opening: float) -> Scene:
    """A scene whose mouth is open so far, 0 to 1."""
    return replace(scene, expression=replace(scene.expression, mouth=opening))


def _mouths(film: Film, size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What frames would be with the mouth closed and wide open, and where it may be: what `mouth_opening` takes."""

    def all_of(scenes: Sequence[Scene]) -> np.ndarray:
        return np.stack([render(scene, size) for scene in scenes])

    closed, opened = ([with_mouth(scene, opening) for scene in film.scenes] for opening in (0.0, 1.0))
    masks = np.stack([grown(lip_mask(scene, size), 1) for scene in opened])
    return all_of(closed), all_of(opened), masks
