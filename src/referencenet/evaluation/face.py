"""Faces: pictures after words, of somebody whose face other pictures show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from referencenet.builtin.load import GUIDANCE, load
from referencenet.builtin.training.observer import aspects_of
from referencenet.evaluation.looking import Seen, likeness, look
from referencenet.evaluation.scores import share_seen, squared_error
from referencenet.evaluation.task import Drawing, Measure, Task, as_bytes, unseen
from referencenet.methods.reference_only import reference as reading
from referencenet.paperdoll.captions import caption
from referencenet.paperdoll.landmarks import face_box
from referencenet.paperdoll.pose import ARM_POSES
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.streams import Stream
from referencenet.preprocess.faces import Face, crop_face

NUM_FACES = 4
"""Photographs of each person, as in training."""
AROUND = 0.35
"""By which share of its side a face is seen beyond its box, hair and chin with it."""
SIDE = 64
"""Pixels at which the observer looks at a face."""
ASKED = ("pose", "view", "shot", "expression", "background")
"""What a prompt without identity tells."""


class FacePictures(Task):
    """Four faces of a person, a prompt that does not tell who, and the face's place; the truth is that person there."""

    name = "face"
    measures = (
        Measure(
            name="face_likeness", told="likeness of the face to the truth's, as the observer sees it", better="more"
        ),
        Measure(name="error_in_face", told="squared error in the face's box, of values in [0, 1]", better="less"),
        Measure(name="prompt_followed", told="share of what the prompt tells that the observer sees", better="more"),
    )

    def rendered(self) -> np.ndarray:
        """(n, H, W, 3)."""
        people = unseen(self.number, self.seed)
        looks = [looks_of(character, self.seed) for character in people]
        self.targets = [scenes[0] for scenes in looks]
        self.boxes = [box for scene in self.targets if (box := face_box(scene, self.size)) is not None]
        self.pictures = [[render(scene, self.size) for scene in scenes[1:]] for scenes in looks]
        self.faces = [
            [_cut_out(*pair, self.size) for pair in zip(scenes[1:], pictures, strict=True)]
            for scenes, pictures in zip(looks, self.pictures, strict=True)
        ]
        self.places = [_wider(box) for box in self.boxes]
        truth = np.stack([render(scene, self.size) for scene in self.targets])
        self.wanted = self._faces_seen(truth).embeddings
        return truth

    def given(self, case: int, frame: int = 0) -> list[np.ndarray]:  # noqa: ARG002 - of films
        """The faces."""
        return [np.asarray(face) for face in self.faces[case]]

    def draw(self, pipe: Any, drawing: Drawing, *, wrong: bool = False) -> np.ndarray:
        """One call for each person."""
        found: list[np.ndarray] = []
        for case, scene in enumerate(self.targets):
            box = [float(side) for side in self.boxes[case]]
            drawn = pipe(
                self.faces[self.other(case) if wrong else case], caption(scene, identity=False), face_box=box,
                output_type="np", generator=drawing.noise(case), **drawing.options(self.size),
            )  # fmt: skip
            found.append(as_bytes(drawn.images))
            drawing.drawn(1)
        return np.concatenate(found)

    def cut(self, pipe: Any, drawing: Drawing) -> np.ndarray:
        """Faces of no strength: FlashFace's guidance comes with each call."""
        silent = {"lambda_feat": 0.0, "lambda_before": 0.0}
        return self.draw(pipe, replace(drawing, further={**drawing.further, **silent}))

    def further(self, pipe: Any, drawing: Drawing) -> Iterator[tuple[str, np.ndarray]]:  # noqa: ARG002 - untrained
        """The built-in base model, which reads the person's first picture by attention."""
        base = load("base")
        base.set_progress_bar_config(disable=True)
        width, height = self.size
        found: list[np.ndarray] = []
        for case, scene in enumerate(self.targets):
            with reading(base, Image.fromarray(self.pictures[case][0]), links=["attention"], style_fidelity=1.0):
                drawn = base(
                    caption(scene, identity=False), num_inference_steps=drawing.steps, guidance_scale=GUIDANCE,
                    width=width, height=height, output_type="np", generator=drawing.noise(case),
                )  # fmt: skip
            found.append(as_bytes(drawn.images))
            drawing.drawn(1)
        yield "training_free", np.concatenate(found)

    def scores(self, pictures: np.ndarray) -> dict[str, float]:
        """Of the face where it shall be, and of the whole picture after the prompt."""
        asked = [aspects_of(scene) for scene in self.targets]
        return {
            "face_likeness": likeness(self._faces_seen(pictures).embeddings, self.wanted),
            "error_in_face": squared_error(pictures, self.truth, self._masks()),
            "prompt_followed": share_seen(look(self.observer, pictures).aspects, asked, ASKED),
        }

    def _faces_seen(self, pictures: np.ndarray) -> Seen:
        """What is seen of the faces alone, each stretched to the observer's size."""
        cut = [
            Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=in_pixels(place, self.size))
            for picture, place in zip(pictures, self.places, strict=True)
        ]
        return look(self.observer, np.stack([np.asarray(face) for face in cut]))

    def _masks(self) -> np.ndarray:
        """Where the faces' boxes are, (n, H, W) bool."""
        masks = np.zeros(self.truth.shape[:3], dtype=bool)
        for mask, box in zip(masks, self.boxes, strict=True):
            left, top, right, bottom = (round(side) for side in in_pixels(box, self.size))
            mask[top:bottom, left:right] = True
        return masks


def looks_of(character: int, seed: int) -> list[Scene]:
    """Scenes of a person whose face is seen: the one that is asked for, then those that are shown."""
    stream = Stream(f"benchmark face {character}", seed)
    found: list[Scene] = []
    while len(found) < 1 + NUM_FACES:
        view = "front" if not found else stream.choice(("front", "left", "right"))
        shot, pose = stream.choice(("portrait", "upper body")), stream.choice(ARM_POSES)
        scene = Scene.from_seeds(character, stream.integer(2**31), view=view, shot=shot, pose=pose)
        if face_box(scene) is not None:
            found.append(scene)
    return found


def in_pixels(box: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom in pixels, of fractions of a picture of (width, height)."""
    left, top, right, bottom = (float(side) for side in box * (*size, *size))
    return left, top, right, bottom


def _cut_out(scene: Scene, picture: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """The face of a picture, as FlashFace takes it."""
    box = face_box(scene, size)
    assert box is not None  # of these scenes it is seen
    return crop_face(Image.fromarray(picture), Face(box=in_pixels(box, size)))


def _wider(box: np.ndarray) -> np.ndarray:
    """A box with what is around a face, inside the picture."""
    more = AROUND * (box[2:] - box[:2])
    return np.concatenate([box[:2] - more, box[2:] + more]).clip(0, 1)
