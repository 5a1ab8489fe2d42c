"""Who is followed through a film, and what stands for frames without anybody: with an estimator that reads stripes."""

import numpy as np
import pytest
from PIL import Image

from referencenet.preprocess.following import Followed
from referencenet.preprocess.regions import Region

SIZE = (200, 40)


def frame(*people: tuple[int, int], size: tuple[int, int] = SIZE) -> Image.Image:
    """White squares by their left border and side."""
    image = Image.new("RGB", size)
    for left, side in people:
        image.paste("white", (left, 2, left + side, 2 + side))
    return image


def regions(image: Image.Image) -> list[Region]:
    row = np.flatnonzero(np.diff(np.asarray(image.convert("L"))[3].astype(int), prepend=0, append=0))
    return [Region(x=(a + b) / 2, y=2 + (b - a) / 2, side=b - a) for a, b in zip(row[::2], row[1::2], strict=True)]


def read(_image: Image.Image, region: Region) -> float:
    return float(region.x)


def test_the_largest_is_followed_though_another_grows() -> None:
    film = [frame((10, 20), (100, 10)), frame((14, 20), (100, 34)), frame((18, 20), (96, 36))]
    followed = Followed(film, regions, read)
    assert list(followed) == [20, 24, 28]
    assert (followed.most, followed.held, followed.num_frames) == (2, [], 3)


def test_a_person_is_counted_from_the_left_and_chosen_anew_after_a_cut() -> None:
    film = [frame((10, 20), (100, 10)), frame((104, 10)), frame((20, 10), (60, 10))]
    assert list(Followed(film, regions, read, person=2)) == [105, 109, 65]


def test_frames_without_anybody_hold_the_last_value_or_the_first() -> None:
    film = [frame(), frame(), frame((10, 20)), frame(), frame((14, 20))]
    followed = Followed(film, regions, read)
    assert list(followed) == [20, 20, 20, 20, 24]
    assert followed.held == [0, 1, 3]


def test_what_is_read_as_nobody_is_held_too() -> None:
    film = [frame((10, 20)), frame((40, 20))]
    assert list(Followed(film, regions, lambda _, region: region.x if region.x < 30 else None)) == [20, 20]


def test_doubts_are_gathered_by_reason() -> None:
    def doubt(x: float, size: tuple[int, int]) -> str | None:
        return "far right" if x > size[0] / 2 else "far left" if x < 15 else None

    followed = Followed([frame((10, 20)), frame(), frame((110, 20)), frame((2, 20))], regions, read, doubt=doubt)
    assert list(followed) == [20, 20, 120, 12]
    assert followed.doubted == {"far right": [2], "far left": [3]}
    assert followed.held == [1]


def test_films_that_never_show_the_person_are_told() -> None:
    with pytest.raises(ValueError, match="none of 2 frames shows anybody"):
        list(Followed([frame(), frame()], regions, read))
    with pytest.raises(ValueError, match=r"a person 2 from the left \(at most 1"):
        list(Followed([frame((10, 20))] * 2, regions, read, person=2))
    with pytest.raises(ValueError, match=r"the picture does not show anybody \(no person was found\)"):
        list(Followed([frame()], regions, read))
    with pytest.raises(ValueError, match="a person was found, but cannot be read, as in profile"):
        list(Followed([frame((10, 20))], regions, lambda *_: None))
    with pytest.raises(ValueError, match="frame 1 is 60 x 40 pixels, the first 200 x 40"):
        list(Followed([frame((10, 20)), frame((10, 20), size=(60, 40))], regions, read))
    with pytest.raises(ValueError, match="counted from 1"):
        Followed([], regions, read, person=0)
