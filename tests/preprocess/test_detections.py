"""Detectors' numbers to boxes, and turned squares to pictures and back: the maths, without a network."""

import math

import numpy as np
import pytest
from PIL import Image

from referencenet.preprocess.detections import Detection, anchors, detections, merged
from referencenet.preprocess.face_mesh import NUM_LANDMARKS
from referencenet.preprocess.face_outline import LIPS, OVAL
from referencenet.preprocess.mediapipe import (
    FAR_LAYERS,
    IBUG,
    NEAR_LAYERS,
    PEOPLE_LAYERS,
    body_region,
    face_region,
    hand_region,
    upright,
)
from referencenet.preprocess.regions import Region, overlap


@pytest.mark.parametrize(
    ("side", "layers", "count"), [(128, NEAR_LAYERS, 896), (192, FAR_LAYERS, 2304), (224, PEOPLE_LAYERS, 2254)]
)
def test_every_answer_of_a_detector_has_its_cell(side: int, layers: tuple[tuple[int, int], ...], count: int) -> None:
    cells = anchors(side, layers)
    assert cells.shape == (count, 2)
    assert 0 < cells.min() < cells.max() < 1
    stride, answers = layers[0]
    assert np.allclose(cells[answers], (1.5 * stride / side, 0.5 * stride / side))  # columns first


def test_values_are_pixels_from_the_middle_of_the_cell() -> None:
    cells = anchors(64, ((32, 1),))  # at 0.25 and 0.75
    values = np.tile([16.0, -16.0, 32.0, 16.0, 8.0, 0.0], (4, 1))
    (found,) = detections(values, np.array([-9.0, 4.0, -9.0, -9.0]), cells, 64, 0.5)
    assert np.allclose(found.box, (0.75, -0.125, 1.25, 0.125))
    assert np.allclose(found.points, [[0.875, 0.25]])
    assert found.score == pytest.approx(1 / (1 + math.exp(-4)))
    assert detections(values, np.full(4, -9.0), cells, 64, 0.5) == []


def test_answers_to_the_same_thing_are_averaged_by_score() -> None:
    rows = np.array([[0, 0, 1, 1, 0.5, 0.5], [0, 0, 1, 0.8, 0.5, 0.9], [4, 4, 5, 5, 4.5, 4.5]], dtype=float)
    near, far = merged(rows, np.array([0.9, 0.3, 0.6]))
    assert np.allclose(near.box, (0, 0, 1, 0.95))
    assert np.allclose(near.points, [[0.5, 0.6]])
    assert (near.score, far.score) == (0.9, 0.6)


def test_points_of_a_turned_square_are_where_its_crop_shows_them() -> None:
    image = Image.new("RGB", (200, 120))
    image.paste("white", (128, 48, 132, 52))  # its middle is at (130, 50)
    region = Region(x=120, y=60, side=80, angle=0.6)
    seen = region.crop(image, 160)
    assert seen.shape == (160, 160, 3)
    rows, columns = np.nonzero(seen[:, :, 0] > 0.5)
    place = np.array([[columns.mean() + 0.5, rows.mean() + 0.5]]) / 160
    assert np.allclose(region.to_picture(place), [[130, 50]], atol=0.3)
    back = region.paste(seen[:, :, 0], image.size)
    assert np.abs(back - np.asarray(image.convert("L")) / 255).mean() < 2e-3


def test_a_much_larger_square_skips_no_pixels() -> None:
    image = Image.new("RGB", (640, 640))
    image.paste("white", (320, 0, 321, 640))  # a line one pixel wide
    seen = Region.whole(image.size).crop(image, 64)
    assert seen[:, :, 0].sum(axis=1) == pytest.approx(0.1, rel=0.1)  # a tenth of a pixel in every row


def test_squares_stand_as_bodies_hands_and_faces_do() -> None:
    assert upright(np.array([0.0, -1.0])) == 0
    assert upright(np.array([1.0, 0.0])) == pytest.approx(math.pi / 2)
    body = body_region(np.array([[50.0, 80.0], [50.0, 30.0]]))
    assert (body.x, body.y, body.side, body.angle) == (50, 80, 125, 0)
    hand = hand_region(np.array([[10.0, 50.0], [12.0, 20.0], [6.0, 20.0]]))
    assert (hand.x, hand.y, hand.side, hand.angle) == (10, 17, pytest.approx(162), 0)
    found = Detection(box=(0.4, 0.4, 0.6, 0.6), points=np.array([[0.45, 0.45], [0.55, 0.55]]), score=1.0)
    face = face_region(Region.whole((100, 50)), found)
    assert (face.x, face.y, face.side, face.angle) == (
        50, pytest.approx(25), pytest.approx(30), pytest.approx(math.pi / 4),
    )  # fmt: skip
    around = Region.around(np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 4.0]]), 1.5, rise=0.1)
    assert (around.x, around.y, around.side) == (5, 1, 15)


def test_overlap_is_intersection_over_union() -> None:
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (1, 1, 2, 2)) == 0


def test_tables_of_landmarks_name_each_once() -> None:
    for table, count in ((IBUG, 68), (OVAL, 36), (LIPS, 20)):
        assert len(set(table)) == len(table) == count
        assert max(table) < NUM_LANDMARKS
