"""Cutting faces out, and the mask of a face's place."""

import numpy as np
import pytest
from PIL import Image

from referencenet.preprocess.faces import Face, crop_face, face_mask, find_face, square_face


def eyes_on_grey(size: int = 64) -> tuple[Image.Image, Face]:
    """A grey square with two white eyes; the right one lower by half their distance."""
    array = np.full((size, size, 3), 60, dtype=np.uint8)
    left, right = (20, 24), (44, 36)
    for x, y in (left, right):
        array[y - 2 : y + 3, x - 2 : x + 3] = 255
    return Image.fromarray(array), Face(box=(0, 0, size, size), left_eye=left, right_eye=right)


def test_eyes_are_level_after_cutting():
    image, face = eyes_on_grey()
    white = (np.asarray(crop_face(image, face))[:, :, 0] > 200).nonzero()
    left, right = (white[0][white[1] < 32].mean(), white[0][white[1] >= 32].mean())
    assert abs(left - right) < 1
    corners = np.asarray(crop_face(image, face))[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert not corners.any()  # nothing is invented


def test_a_face_without_eyes_is_cut_as_it_is():
    image, _ = eyes_on_grey()
    crop = crop_face(image, Face(box=(9.6, 20.4, 30.5, 41)))
    assert crop.size == (20, 21)  # Python rounds 30.5 to 30
    assert np.array_equal(np.asarray(crop), np.asarray(image)[20:41, 10:30])


@pytest.mark.parametrize("box", [(70, 0, 80, 10), (10, 10, 10, 20), (30, 10, 20, 20), (0, -9, 10, 0)])
def test_a_box_without_pixels_is_refused(box: tuple[int, int, int, int]):
    with pytest.raises(ValueError, match="left, top, right, bottom"):
        crop_face(Image.new("RGB", (64, 48)), Face(box=box))


@pytest.mark.parametrize(("count", "words"), [(0, "no faces were found"), (2, "2 faces were"), (5, "5 faces were")])
def test_one_face_is_needed(count: int, words: str):
    with pytest.raises(ValueError, match=words):
        find_face(Image.new("RGB", (64, 48)), lambda _: [Face(box=(0, 0, 8, 8))] * count)
    assert find_face(Image.new("RGB", (64, 48)), lambda _: [Face(box=(0, 0, 8, 9))]).size == (8, 9)


@pytest.mark.parametrize("size", [(10, 30), (30, 10), (7, 7)])
def test_a_face_fills_a_square_with_black_beside_it(size: tuple[int, int]):
    square = np.asarray(square_face(Image.new("RGB", size, "white"), 60))
    assert square.shape == (60, 60, 3)
    lit = (square[:, :, 0] > 250).nonzero()
    height, width = np.ptp(lit[0]) + 1, np.ptp(lit[1]) + 1
    assert (width, height) == (round(60 * size[0] / max(size)), round(60 * size[1] / max(size)))
    assert abs(lit[0].mean() - 29.5) <= 0.5
    assert abs(lit[1].mean() - 29.5) <= 0.5


def test_the_mask_of_the_readme_s_box():
    mask = face_mask((0.3, 0.1, 0.6, 0.4), width=768, height=768)
    rows, columns = mask.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 38, 29, 57)
    assert mask.shape == (96, 96)


def test_a_box_becomes_a_square_and_is_cut_at_the_border():
    mask = face_mask((0.5, 0.5, 1.0, 0.75), width=128, height=64)
    assert mask.shape == (8, 16)
    assert mask[4:, 8:].all()
    assert mask.sum() == 4 * 8


def test_no_box_leaves_the_place_free():
    assert not face_mask(None, width=64, height=40).any()
    assert not face_mask((0, 0, 0, 0), width=64, height=40).any()


@pytest.mark.parametrize("box", [(0.5, 0.1, 0.4, 0.3), (0, 0, 1.2, 1), (-0.1, 0, 1, 1), (0.1, 0.1, 0.5)])
def test_a_box_that_is_none_is_refused(box: tuple[float, ...]):
    with pytest.raises(ValueError, match="as fractions"):
        face_mask(box, width=64, height=64)
