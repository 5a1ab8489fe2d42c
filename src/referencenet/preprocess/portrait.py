"""A portrait with what is known of its face: where it is, and the numbers by which a recogniser knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from referencenet.media.images import Picture, read_image
from referencenet.preprocess.face_doubts import check_face
from referencenet.preprocess.face_embedding import EMBEDDING, read_face_embedding
from referencenet.preprocess.face_mesh import checked_landmarks, only_face, read_landmarks
from referencenet.preprocess.face_regions import FaceRegions
from referencenet.preprocess.following import chosen
from referencenet.preprocess.regions import Region
from referencenet.telling import note

if TYPE_CHECKING:
    from torch import Tensor

FACE_SHARE = 0.6
"""How much of the square's side the face takes in a portrait that is cut out: half to two thirds is usual."""


Read = TypeVar("Read", covariant=True)


class FaceReader(Protocol[Read]):
    """Finds faces and reads them: `FaceMesh` and `BundledMesh` their landmarks, `FaceLandmarker` what is in space."""

    def regions(self, image: Image.Image) -> Sequence[Region]:
        """Where faces are."""
        ...

    def read(self, image: Image.Image, region: Region) -> Read | None:
        """What is read of the face there; None: it is none."""
        ...


def find_face(
    image: Image.Image, reader: FaceReader[Read], *, person: int | None = None,
    told: Callable[[str], None] | None = None,
) -> Read:  # fmt: skip
    """The face of a portrait.

    Args:
        image: The portrait, RGB.
        reader: Finds faces.
        person: Which one of several, counted from the left from 1; None: the largest.
        told: Told in a sentence that the largest was taken of several; None: it is warned of.

    Returns:
        What the reader reads of it.

    Raises:
        ValueError: If there is no face, none that can be read, or fewer than `person`.
    """
    regions = reader.regions(image)
    region = chosen(regions, person, None)
    size = f"the picture of {image.width} x {image.height} pixels"
    if not regions:
        raise ValueError(f"no face was found in {size}; give a larger or clearer one that looks at the camera.")
    if region is None:
        raise ValueError(
            f"face {person} from the left was asked for, but {size} shows {len(regions)}; ask for another."
        )
    found = reader.read(image, region)
    if found is None:
        raise ValueError(f"what was found in {size} is not a face that can be read; give a clearer or larger one.")
    if person is None and len(regions) > 1:
        place = 1 + sum(other.x < region.x for other in regions)
        (told or note)(f"the picture shows {len(regions)} faces; the largest is taken, person {place} from the left.")
    return found


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """A portrait of one face.

    Attributes:
        picture: Square, the face half to two thirds of it.
        landmarks: MediaPipe's, (468 or 478, 2), x and y in the picture's pixels, or a file of `refnet preprocess
            PICTURE --to landmarks`; or `regions`.
        regions: Where face and lips are, if that is known already; or a file that `FaceRegions.read` takes.
        face: Embedding of the face as InsightFace's glintr100 gives it, not normalised: 512 numbers, an .npy file of
            them, or with landmarks the network itself, an .onnx file. None: zeros, as published where no face is
            recognised.
    """

    picture: Picture
    landmarks: Any = None
    regions: FaceRegions | str | Path | None = None
    face: Any = None

    @classmethod
    def found(
        cls, picture: Picture, reader: FaceReader[np.ndarray], *, person: int | None = None, face: Any = None,
        told: Callable[[str], None] | None = None,
    ) -> Portrait:  # fmt: skip
        """The portrait in a photograph: a square around the face in which it takes about 60 % of the side.

        Args:
            picture: As `read_image` takes it. A square is left as it is where the face takes half of its side or more.
            reader: Finds faces, and reads landmarks (468 or 478, 3) in pixels.
            person: Which one of several, counted from the left from 1; None: the largest.
            face: Its embedding, or the network that gives it.
            told: Told in a sentence what a user should know; None: it is warned of.

        Raises:
            ValueError: If no face is found, or too little of it is seen: it is in profile, or cut off by a border.
        """
        image = read_image(picture)
        points = find_face(image, reader, person=person, told=told)
        doubt = check_face(points, image.size)
        if doubt is not None:
            (told or note)(doubt)
        left, top, side = square_around(points, image.size)
        cut = image.crop((left, top, left + side, top + side))
        return cls(picture=cut, landmarks=points[:, :2] - (left, top), face=face)

    def points(self) -> np.ndarray:
        """The landmarks, (468 or 478, 2) in the picture's pixels.

        Raises:
            ValueError: If there are none, or others.
        """
        if self.landmarks is None:
            raise ValueError("the portrait has no landmarks; give them, or find them with Portrait.found.")
        if not isinstance(self.landmarks, str | Path):
            return checked_landmarks(self.landmarks)[:, :2]
        found = only_face(read_landmarks(self.landmarks).landmarks, self.landmarks)
        return found[:, :2] * read_image(self.picture).size

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
        if self.regions is None:
            return FaceRegions.of(self.points(), (width, height))
        given = isinstance(self.regions, FaceRegions)
        return self.regions if given else FaceRegions.read(self.regions, (width, height))

    def embedding(self, numbers: int | None = EMBEDDING) -> Tensor:
        """The face's embedding, (1, numbers); None: as many as it has."""
        points = None if self.landmarks is None else self.points()
        return read_face_embedding(self.face, self.picture, points, numbers)


def square_around(landmarks: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int]:
    """Left, top and side of a square inside the picture in which a face takes `FACE_SHARE` of the side.

    Where the picture is too small for it, the face takes more; a square whose face takes half or more is left whole.

    Args:
        landmarks: (468 or 478, 2 or 3) in pixels.
        size: Width and height of the picture.
    """
    points = checked_landmarks(landmarks)[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    longer = float((high - low).max())
    if size[0] == size[1] and longer >= size[0] / 2:
        return 0, 0, size[0]
    side = min(round(longer / FACE_SHARE), *size)
    left, top = (
        int(np.clip(round(float(middle) - side / 2), 0, length - side))
        for middle, length in zip((low + high) / 2, size, strict=True)
    )
    return left, top, side
