"""One of several people: who is counted, where the picture is cut, and what of it is theirs."""

import numpy as np
import pytest
from PIL import Image

from referencenet.preprocess.mediapipe import Person
from referencenet.preprocess.people import find_person
from referencenet.preprocess.regions import Region

SIZE = (400, 300)
IMAGE = Image.new("RGB", SIZE)


def person(left: int, top: int, right: int, bottom: int, *, is_seen: bool = True) -> Person:
    """Somebody whose mask is a box with a soft border of four pixels; unseen, there are two points alone."""
    mask = np.zeros(SIZE[::-1], dtype=np.float32)
    if is_seen:
        mask[max(top - 4, 0) : bottom + 4, max(left - 4, 0) : right + 4] = 0.3
        mask[top:bottom, left:right] = 1
    points = np.zeros((33, 3))
    points[:2] = [(left, top, 1), (right, bottom, 1)]
    return Person(points=points, mask=mask)


class Reader:
    """Finds the people that it was told of, in this order; None is a place with nobody."""

    def __init__(self, *people: Person | None, places: tuple[float, ...]) -> None:
        self.people, self.places = dict(zip(places, people, strict=True)), places

    def regions(self, _image: Image.Image) -> list[Region]:
        return [Region(x=place, y=150, side=100) for place in self.places]

    def read(self, _image: Image.Image, region: Region) -> Person | None:
        return self.people[region.x]


TWO = Reader(person(300, 100, 340, 200), person(50, 100, 110, 220), places=(320, 80))


@pytest.mark.parametrize(
    ("number", "proportions", "box"),
    [
        (1, None, (47, 94, 113, 226)),  # 60 x 120 pixels, and a twentieth on each side
        (2, None, (298, 95, 342, 205)),
        (2, (1, 1), (265, 95, 375, 205)),  # wider, around the same middle
        (1, (1, 1), (14, 94, 146, 226)),
        (1, (3, 1), (0, 94, 396, 226)),  # beyond the left border: it is moved
        (1, (6, 1), (0, 94, 400, 226)),  # wider than the picture: as far as it reaches
        (2, (1, 4), (298, 62, 342, 238)),  # higher
    ],
)
def test_the_cut_shows_the_person_with_room_at_the_proportions_asked_for(
    number: int, proportions: tuple[int, int] | None, box: tuple[int, ...]
) -> None:
    found = find_person(IMAGE, TWO, number, proportions)
    assert found is not None
    assert found.box == box
    assert found.mask.size == (box[2] - box[0], box[3] - box[1])


def test_the_mask_tells_where_the_person_may_be() -> None:
    found = find_person(IMAGE, TWO, 1, (1, 1))
    assert found is not None
    inside = np.asarray(found.mask)
    assert set(np.unique(inside)) == {0, 255}
    whole = np.zeros(SIZE[::-1], dtype=bool)
    whole[96:224, 46:114] = True  # with the soft border
    left, top, right, bottom = found.box
    assert np.array_equal(inside > 0, whole[top:bottom, left:right])


def test_places_with_nobody_are_not_counted() -> None:
    reader = Reader(None, person(50, 100, 110, 220), None, places=(20, 80, 200))
    assert find_person(IMAGE, Reader(None, places=(20,)), 1) is None
    found = find_person(IMAGE, reader, 1)
    assert found is not None
    assert found.box == (47, 94, 113, 226)
    with pytest.raises(
        ValueError, match=r"person 2 from the left was asked for, but the picture of 400 x 300 .* shows 1"
    ):
        find_person(IMAGE, reader, 2)


def test_without_a_sure_pixel_the_points_that_are_seen_count() -> None:
    found = find_person(IMAGE, Reader(person(50, 100, 110, 220, is_seen=False), places=(80,)), 1)
    assert found is not None
    assert found.box == (47, 94, 113, 226)
