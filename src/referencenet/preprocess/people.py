"""One of several people in a picture: the part of the picture that shows this person, and where in it the person is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from referencenet.preprocess.regions import Region

if TYPE_CHECKING:
    from referencenet.preprocess.mediapipe import Person

ROOM = 0.05
"""Left free on each side of a person, as a share of their height or width."""

SURE, SOFT = 0.5, 0.1
"""Of a mask, 0 to 1: from where on a pixel decides how far the person reaches; below which it is somebody else's."""


class PeopleReader(Protocol):
    """Finds people and reads each; `BlazePose` is one."""

    def regions(self, image: Image.Image) -> Sequence[Region]:
        """Where people are."""
        ...

    def read(self, image: Image.Image, region: Region) -> Person | None:
        """Who is there; None: nobody after all."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class PersonCut:
    """The part of a picture that shows one person.

    Attributes:
        box: Left, top, right, bottom in the picture's pixels.
        mask: Mode L, of the box's size: white where the person is or may be, black where they are not.
    """

    box: tuple[int, int, int, int]
    mask: Image.Image


def find_person(
    image: Image.Image, reader: PeopleReader, person: int, proportions: tuple[int, int] | None = None
) -> PersonCut | None:
    """Where to cut a picture so that it shows one of several people, with some room around.

    Other people stay in the cut where they reach into it.

    Args:
        image: RGB.
        reader: Finds people.
        person: Which one, counted from the left from 1.
        proportions: Width and height that the cut is grown to, as far as the picture reaches; None: as the person is.

    Returns:
        None if the picture shows nobody.

    Raises:
        ValueError: If it shows somebody, but fewer than `person` people.
    """
    regions = sorted(reader.regions(image), key=lambda region: region.x)
    found = [who for region in regions if (who := reader.read(image, region)) is not None]
    if not found:
        return None
    if not 1 <= person <= len(found):
        raise ValueError(
            f"person {person} from the left was asked for, but the picture of {image.width} x {image.height} pixels "
            f"shows {len(found)}; ask for another, or cut the picture yourself."
        )
    who = found[person - 1]
    box = _roomy(_extent(who), image.size, proportions)
    mask = Image.fromarray(np.where(who.mask >= SOFT, 255, 0).astype(np.uint8))
    return PersonCut(box=box, mask=mask.crop(box))


def _extent(person: Person) -> np.ndarray:
    """Corners ((left, top), (right, bottom)) of all pixels of a person, or of the points if the mask has none."""
    rows, columns = np.nonzero(person.mask >= SURE)
    if not len(rows):
        seen = person.points[person.points[:, 2] > 0, :2]
        seen = seen if len(seen) else person.points[:, :2]
        return np.stack([seen.min(axis=0), seen.max(axis=0)])
    return np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]], dtype=np.float64)


def _roomy(
    extent: np.ndarray, size: tuple[int, int], proportions: tuple[int, int] | None
) -> tuple[int, int, int, int]:  # fmt: skip
    """The box around corners with room, grown to proportions, inside a picture of (width, height)."""
    width, height = ((extent[1] - extent[0]) * (1 + 2 * ROOM)).tolist()
    if proportions is not None:
        ratio = proportions[0] / proportions[1]
        width, height = max(width, height * ratio), max(height, width / ratio)
    sides = [min(max(1, round(side)), most) for side, most in zip((width, height), size, strict=True)]
    left, top = (
        int(np.clip(round(float(middle) - side / 2), 0, most - side))
        for middle, side, most in zip(extent.mean(axis=0), sides, size, strict=True)
    )
    return left, top, left + sides[0], top + sides[1]
