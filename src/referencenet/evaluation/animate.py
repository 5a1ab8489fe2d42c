"""Animation: people of the test split dance as the skeletons or the DensePose drawings of a film say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from referencenet.builtin.training.benchmark import pose_error
from referencenet.evaluation.films import OF_CHANGES, OF_FRAMES, films_of, frame_scores, without_motion
from referencenet.evaluation.scores import frame_error
from referencenet.evaluation.task import Drawing, Measure, Task, unseen
from referencenet.paperdoll.film import dance, talk
from referencenet.paperdoll.maps import dense_map, dense_picture
from referencenet.paperdoll.mesh import face_mesh
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Background, Scene
from referencenet.paperdoll.skeleton import keypoints, skeleton
from referencenet.paperdoll.streams import Stream
from referencenet.preprocess.face_mesh import draw_face_mesh

FRAMES, STRIDE = 8, 2
"""Of a film: as many as the clips of the small trainings have, and every second one of 25 a second."""


class Animation(Task):
    """A standing person, and drawings of a dance; the truth is that person dancing."""

    name = "animate"
    measures = (
        *OF_FRAMES,
        Measure(name="key_points", told="distance of key points, in picture heights", better="less"),
        OF_CHANGES,
    )

    def rendered(self) -> np.ndarray:
        """(n, f, H, W, 3)."""
        people = unseen(self.number, self.seed)
        films = [Stream(f"benchmark dance {character}", self.seed).integer(2**31) for character in people]
        self.films = [self.film(*pair)[::STRIDE] for pair in zip(people, films, strict=True)]
        self.persons = np.stack([render(self.still(scenes[0]), self.size) for scenes in self.films])
        self.points = np.stack([keypoints(scene, self.size) for scenes in self.films for scene in scenes])
        return np.stack([[render(scene, self.size) for scene in scenes] for scenes in self.films])

    def film(self, character: int, film: int) -> tuple[Scene, ...]:
        """What a person does, 25 scenes a second."""
        return dance(character, film, num_frames=FRAMES * STRIDE, background=Background(colour="white")).scenes

    def still(self, scene: Scene) -> Scene:
        """The person of a scene as the reference shows it: standing before the same background, looking ahead."""
        return replace(scene, pose=Pose.named("standing"))

    def drawing_of(self, scene: Scene) -> np.ndarray:
        """What drives the film, (H, W, 3) uint8."""
        return skeleton(scene, self.size)

    def given(self, case: int, frame: int = 0) -> list[np.ndarray]:
        """The person, and the frame's drawing."""
        return [self.persons[case], self.drawing_of(self.films[case][frame])]

    def draw(self, pipe: Any, drawing: Drawing, *, wrong: bool = False) -> np.ndarray:
        """The films, each in one call."""

        def film(case: int) -> Any:
            person = Image.fromarray(self.persons[self.other(case) if wrong else case])
            drawings = [Image.fromarray(self.drawing_of(scene)) for scene in self.films[case]]
            return pipe(person, drawings, output_type="np", generator=drawing.noise(case), **drawing.options(self.size))

        return films_of(film, self.number, drawing.drawn)

    def further(self, pipe: Any, drawing: Drawing) -> Iterator[tuple[str, np.ndarray]]:
        """The same without motion modules, where the system has some."""
        with without_motion(pipe.unet) as count:
            if count:
                yield "no_motion", self.draw(pipe, drawing)

    def scores(self, pictures: np.ndarray) -> dict[str, float]:
        """Of all frames."""
        scores, seen = frame_scores(pictures, self.truth, self.persons, self.observer)
        upright = torch.tensor([self.size[0] / self.size[1], 1.0])  # both in picture heights
        points = self.points * np.array([*upright.tolist(), 1.0], dtype=np.float32)
        key_points = pose_error(seen.points * upright, points)
        return scores | {"key_points": key_points, "frame_error": frame_error(pictures, self.truth)}


class DenseAnimation(Animation):
    """The same by DensePose drawings: MagicAnimate."""

    def drawing_of(self, scene: Scene) -> np.ndarray:
        """DensePose's drawing, (H, W, 3) uint8."""
        return dense_picture(dense_map(scene, self.size))


class FaceAnimation(Animation):
    """A portrait, and drawings of the face mesh of a head that talks: AniPortrait."""

    def film(self, character: int, film: int) -> tuple[Scene, ...]:
        """A head that talks, 25 scenes a second."""
        return talk(character, film, num_frames=FRAMES * STRIDE).scenes

    def still(self, scene: Scene) -> Scene:
        """The same head, looking ahead with its mouth closed."""
        ahead = replace(scene.pose, head_turn=0.0, head_pitch=0.0, head_tilt=0.0)
        return replace(scene, pose=ahead, expression=replace(scene.expression, mouth=0.0))

    def drawing_of(self, scene: Scene) -> np.ndarray:
        """The face mesh's drawing, (H, W, 3) uint8."""
        return draw_face_mesh(face_mesh(scene, self.size), *self.size)
