"""A portrait with what is known of its face: where it is, and the numbers by which a recogniser knows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from referencenet.inputs import read_arrays
from referencenet.media.images import Picture, read_image
from referencenet.preprocess.face_regions import FaceRegions

EMBEDDING = 512
"""Numbers of InsightFace's recognisers."""


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """A portrait of one face.

    Attributes:
        picture: Square, the face half to two thirds of it.
        landmarks: MediaPipe's, (468 or 478, 2), x and y in the picture's pixels; or `regions`.
        regions: Where face and lips are, if that is known already.
        face: Embedding of the face as InsightFace's glintr100 gives it, not normalised: 512 numbers, or an .npy file of
            them. None: zeros, as published where no face is recognised.
    """

    picture: Picture
    landmarks: Any = None
    regions: FaceRegions | None = None
    face: Any = None

    def located(self) -> FaceRegions:
        """Where face and lips are.

        Raises:
            ValueError: If neither landmarks nor regions were given, or both, or the picture is not square.
        """
        if (self.landmarks is None) == (self.regions is None):
            count = "both were" if self.regions is not None else "neither was"
            raise ValueError(f"give the portrait's landmarks or its regions, one of the two; {count} given.")
        width, height = read_image(self.picture).size
        if width != height:
            raise ValueError(f"the portrait is {width} x {height}; crop it to a square around the face.")
        return self.regions or FaceRegions.of(self.landmarks, (width, height))

    def embedding(self) -> Tensor:
        """The face's embedding, (1, 512)."""
        return read_embedding(self.face)


def read_embedding(face: Any) -> Tensor:
    """An embedding of a face, as numbers or an .npy file; None: zeros.

    Returns:
        (1, 512), float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another number of numbers, or they are not finite.
    """
    if face is None:
        return torch.zeros(1, EMBEDDING)
    is_file = isinstance(face, str | Path)
    values = read_arrays(face, "an embedding, .npy").get("", np.empty(0)) if is_file else np.asarray(face)
    if values.size != EMBEDDING or values.dtype.kind not in "fiu":
        raise ValueError(
            f"the face is {values.dtype} of shape {values.shape}; expected {EMBEDDING} numbers of glintr100."
        )
    found = torch.from_numpy(values.astype(np.float32).reshape(1, EMBEDDING))
    if not bool(torch.isfinite(found).all()):
        raise ValueError("the face's embedding holds values that are not finite; give numbers.")
    return found
