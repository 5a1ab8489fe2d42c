"""The drawn head: angles turn it as they say, it keeps its size, and it takes a portrait's colours."""

import numpy as np
import pytest
from PIL import Image

from referencenet.preprocess.head_proxy import FIELD_OF_VIEW, HeadCamera, HeadColours, HeadFilm, draw_head, swing

PLAIN = HeadColours(skin=(200, 150, 120), hair=(30, 200, 40), cloth=(20, 20, 220), backdrop=(255, 0, 255))


def drawn(size: int = 96, **camera: float) -> np.ndarray:
    return np.asarray(draw_head(HeadCamera(**camera), (size, size), PLAIN)).astype(int)


def places(picture: np.ndarray, part: str) -> np.ndarray:
    """Rows and columns, from the middle, right and up, in [-1, 1], of what has a part's colour."""
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    found = {
        "head": ~((red > 200) & (green < 60) & (blue > 200)) & ~((blue > 90) & (red < 60)),
        "hair": (green > red * 2) & (green > blue * 2),
        "eyes": (red < 60) & (abs(red - green) < 12) & (abs(blue - green) < 12),
    }[part]
    rows, columns = np.nonzero(found)
    half = len(picture) / 2
    return np.stack([columns + 0.5 - half, half - rows - 0.5]) / half


def test_a_frontal_head_is_symmetric_in_its_shape() -> None:
    column, row = places(drawn(), "head")
    assert abs(column.mean()) < 0.02
    assert abs(places(drawn(), "eyes")[0].mean()) < 0.02
    assert row.max() > 0.75
    assert abs(column[row > -0.5]).max() < 0.75


@pytest.mark.parametrize("angle", [-35, 35])
def test_angles_turn_the_face_as_they_say(angle: float) -> None:
    sign = np.sign(angle)
    eyes = places(drawn(), "eyes").mean(axis=1)
    assert sign * places(drawn(yaw=angle), "eyes")[0].mean() > 0.1  # to the right of the picture
    assert sign * (places(drawn(pitch=angle), "eyes")[1].mean() - eyes[1]) > 0.1  # up
    assert sign * places(drawn(roll=angle), "eyes")[0].mean() > 0.05  # eyes are above the middle: they lean along
    hair = places(drawn(yaw=angle), "hair")[0].mean()
    assert sign * hair < 0  # the back of the head goes the other way


def test_from_behind_there_is_hair_and_no_eye() -> None:
    behind = drawn(yaw=180)
    assert places(behind, "eyes").size == 0
    assert places(behind, "hair").shape[1] > 2 * places(drawn(), "hair").shape[1]


def test_the_head_keeps_its_size_under_another_field_of_view() -> None:
    areas = [places(drawn(field_of_view=fov), "head").shape[1] for fov in (5, FIELD_OF_VIEW, 40)]
    assert max(areas) / min(areas) < 1.25
    assert len(set(areas)) == 3  # perspective


def test_a_head_before_a_wide_lens_is_whole_though_parts_are_near() -> None:
    assert places(drawn(field_of_view=100), "head").shape[1] > places(drawn(), "head").shape[1] / 2


def test_sizes_need_not_be_square() -> None:
    assert draw_head(HeadCamera(), (40, 24)).size == (40, 24)
    with pytest.raises(ValueError, match="0 x 4"):
        draw_head(HeadCamera(), (0, 4))


def test_colours_come_from_a_portrait_framed_alike() -> None:
    found = HeadColours.of(draw_head(HeadCamera(), (128, 128), PLAIN))
    for name in ("skin", "hair", "cloth", "backdrop"):
        given, taken = np.array(getattr(PLAIN, name)), np.array(getattr(found, name))
        assert abs(given / np.linalg.norm(given) - taken / np.linalg.norm(taken)).max() < 0.1, name
    assert HeadColours.of(Image.new("RGB", (3, 5))).skin == (0, 0, 0)


def test_cameras_swing_from_the_first_angles_to_the_last() -> None:
    cameras = swing(5, yaw=(-40, 40), pitch=(10, -10), roll=3, field_of_view=20)
    assert [camera.yaw for camera in cameras] == [-40, -20, 0, 20, 40]
    assert [camera.pitch for camera in cameras] == [10, 5, 0, -5, -10]
    assert {(camera.roll, camera.field_of_view) for camera in cameras} == {(3, 20)}
    assert swing(1, yaw=(-40, 20))[0].yaw == -10
    with pytest.raises(ValueError, match="0 views were asked for"):
        swing(0)


def test_a_film_is_drawn_once_and_can_be_read_again() -> None:
    film = HeadFilm(swing(3, yaw=(0, 20)), (16, 16))
    assert len(film) == 3
    first, second = list(film), list(film)
    assert all(a is b for a, b in zip(first, second, strict=True))
    assert len({picture.tobytes() for picture in first}) == 3


@pytest.mark.parametrize(
    ("name", "value"), [("yaw", 181), ("pitch", -91), ("roll", float("nan")), ("field_of_view", 0.5)]
)
def test_angles_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}; expected degrees from"):
        HeadCamera(**{name: value})
