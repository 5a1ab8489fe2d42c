"""A system as the built-in weights have it: small, for drawn figures. What commands use where no weights are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Wav2Vec2Model

from referencenet.builtin.drawn import drawn_spec, size_of
from referencenet.builtin.load import WEIGHTS, load_observer
from referencenet.builtin.start import TASKS, is_shipped, load_system
from referencenet.builtin.toys import make_speech_model
from referencenet.builtin.training.data import to_tensors
from referencenet.media.images import Picture, read_image
from referencenet.paperdoll.cameras import HeadCamera, seen_from
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Background, Camera, Scene
from referencenet.preprocess.face_regions import SIDE, Box, FaceRegions, filled
from referencenet.preprocess.portrait import Portrait
from referencenet.training.recipes.index import recipe_of

CALLS: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    "flashface": {"published_suffixes": False},  # words that nobody learned in the drawn world
})  # fmt: skip
"""What else a system's call is told in the drawn world."""
HEAD = 23
"""Character whose head the drawn cameras look at."""
EYES, FACE, LIPS = 14.4, (17.0, 17.8, 14.6), (5.0, -6.4, 13.9)
"""In the head's units: from eye to eye; from between them half of the face's width, up to its top and down to its
chin; likewise of the lips, whose upper edge is below the eyes."""


class ShippedSystem:
    """Stands in the place of a system's class: all of it, but for the defaults and the weights.

    Args:
        system: Registry name.
        folder: Of the built-in weights.

    Attributes:
        system: Registry name.
        pipeline: The class.
        spec: Its declaration with the defaults of the small networks.
        call: What else its call is told.
        factor: Pixels that a latent's side covers.
    """

    def __init__(self, system: str, folder: Path = WEIGHTS) -> None:
        self.system, self.folder = system, folder
        self.pipeline: Any = recipe_of(system).pipeline
        self.spec = drawn_spec(system)
        self.call = CALLS.get(system, {})
        self.factor = 2

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipeline, name)

    def load(self) -> Any:
        """The pipeline with its weights; its calls have these defaults."""
        return load_system(self.system, folder=self.folder)

    @property
    def told(self) -> str:
        """In a sentence, that they are no published ones."""
        width, height = size_of(self.system)
        title = self.pipeline.published.name.split(".")[0]
        return (
            f"these are the small built-in weights of {title}, for drawn figures of {width} x {height} pixels; "
            f"`refnet methods {title}` says where the published ones are, which --checkpoint takes."
        )


def shipped_system(pipeline: Any, folder: Path = WEIGHTS) -> ShippedSystem | None:
    """The built-in weights of a system's class; None where there are none.

    Args:
        pipeline: The class.
        folder: Of the built-in weights.
    """
    for system in TASKS:
        if is_shipped(system, folder=folder) and recipe_of(system).pipeline is pipeline:
            return ShippedSystem(system, folder)
    return None


def speech_model() -> Wav2Vec2Model:
    """The small model that hears for talking portraits."""
    return make_speech_model()


def drawn_portrait(picture: Picture, folder: Path = WEIGHTS) -> Portrait:
    """A drawn portrait with regions and numbers of its face, as the observer sees it; edges are sharp, as in training.

    Args:
        picture: Square, of one drawn face that looks ahead.
        folder: Of the built-in weights.

    Raises:
        ValueError: If it is not square.
    """
    image = read_image(picture)
    if image.width != image.height:
        raise ValueError(f"the portrait is {image.width} x {image.height}; crop it to a square around the face.")
    observer = load_observer(folder=folder)
    pixels = to_tensors(np.asarray(image)[None])
    with torch.no_grad():
        found = observer(pixels)
    left, right = found.keypoints[0, [14, 15]].tolist()  # the person's right eye stands left
    unit = max(abs(right[0] - left[0]), 0.05) / EYES
    middle = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)
    square = (SIDE, SIDE)
    face, lips = (filled(_box(middle, unit, part, square), square) for part in (FACE, LIPS))
    regions = FaceRegions(
        place=filled(_box(middle, unit, FACE, image.size), image.size),
        pose=255 - face, face=np.where(lips, 0, face).astype(np.uint8), lip=lips,
    )  # fmt: skip
    return Portrait(picture=image, regions=regions, face=found.embedding)


def _box(middle: tuple[float, float], unit: float, part: tuple[float, float, float], size: tuple[int, int]) -> Box:
    """Left, right, top and bottom in pixels of a part around the middle of the eyes."""
    half, up, down = (unit * length for length in part)
    sides = middle[0] - half, middle[0] + half, middle[1] - up, middle[1] + down
    left, right, top, bottom = (
        round(min(max(side, 0.0), 1.0) * length)
        for side, length in zip(sides, (size[0],) * 2 + (size[1],) * 2, strict=True)
    )
    return left, max(right, left + 1), top, max(bottom, top + 1)


def drawn_heads(angles: Sequence[Any], size: tuple[int, int]) -> list[Image.Image]:
    """A drawn head from cameras, as the small networks know the cameras' pictures.

    Args:
        angles: With `yaw` and `pitch` in degrees each; a roll cannot be drawn.
        size: (width, height) in pixels.
    """
    head = Scene.from_seeds(
        HEAD, 0, pose=Pose(), expression="neutral", background=Background(colour="grey"), camera=Camera(shot="portrait")
    )
    scenes = [seen_from(head, HeadCamera(yaw=each.yaw, pitch=each.pitch)) for each in angles]
    return [Image.fromarray(render(scene, size)) for scene in scenes]
