"""The clothes-agnostic mask; its published results stand in the golden case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from referencenet.preprocess import agnostic_mask

POINTS = np.zeros((18, 2))
POINTS[2:5] = [[30, 40], [22, 60], [20, 78]]
POINTS[5:8] = [[66, 40], [74, 60], [76, 78]]


def parsing(scale: int = 1) -> np.ndarray:
    """A person of 128 x 96 pixels in upper clothes (4), pants (6) and a hat (1)."""
    labels = np.zeros((128, 96), dtype=np.uint8)
    labels[10:20, 40:56] = 1
    labels[20:32, 40:56] = 11
    labels[36:80, 30:66] = 4
    labels[80:120, 32:64] = 6
    labels[70:80, 16:24] = 15
    return labels.repeat(scale, 0).repeat(scale, 1)


def white(*args: Any, **kwargs: Any) -> np.ndarray:
    mask = agnostic_mask(*args, **kwargs)
    assert mask.mode == "L"
    return np.array(mask) == 255


def test_the_garment_is_repainted_and_the_rest_stays() -> None:
    found = white(parsing(), POINTS)
    assert found.shape == (128, 96)
    assert found[40:70, 34:62].mean() > 0.95  # the garment
    assert found[parsing() == 6].mean() < 0.1  # pants; the contour's approximation may cut their corners
    assert found[parsing() == 11].mean() < 0.1  # the head
    assert not found[0].any()
    assert not found[:, 0].any()


def test_pants_are_repainted_when_asked_for() -> None:
    found = white(parsing(), POINTS, category="lower_body")
    assert found[86:116, 36:60].mean() > 0.95
    assert found[parsing() == 4].mean() < 0.1


def test_arms_grow_with_their_width_and_with_the_picture() -> None:
    narrow, wide = (white(parsing(), POINTS, arm_width=width).sum() for width in (30, 90))
    assert narrow < wide
    large = white(parsing(4), POINTS * 4)
    assert large.shape == (512, 384)
    assert abs(large.mean() - white(parsing(2), POINTS * 2).mean()) < 0.05


def test_an_unseen_elbow_draws_no_line_to_the_corner() -> None:
    """The published code looks at the wrist only, and draws unseen joints at (0, 0)."""
    points = POINTS.copy()
    points[3] = 0
    assert not white(parsing(), points)[:20, :16].any()


def test_confidences_beside_the_points_are_not_read() -> None:
    points = np.concatenate([POINTS, np.ones((18, 1))], axis=1)
    assert np.array_equal(white(parsing(), points), white(parsing(), POINTS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parsing": parsing().astype(np.float32)}, r"parsing is float32 \(128, 96\); expected whole numbers"),
        ({"parsing": np.zeros((8, 8, 3), np.uint8)}, "not a coloured picture"),
        ({"parsing": parsing() + 20}, "labels from 20 to 35; expected 0 to 18"),
        ({"parsing": np.zeros((16, 16), np.uint8)}, "shows nothing of the category 'upper_body'"),
        ({"keypoints": POINTS[:17]}, r"keypoints are \(17, 2\); expected \(18, 2\)"),
        ({"keypoints": np.stack([POINTS, POINTS])}, r"keypoints are \(2, 18, 2\); .* of one person"),
        ({"category": "hat"}, "category is 'hat'; it can be upper_body, dresses, lower_body"),
    ],
    ids=["floats", "colours", "labels", "nothing", "points", "two people", "category"],
)
def test_wrong_maps_are_explained(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"parsing": parsing(), "keypoints": POINTS, "category": "upper_body"} | change
    if not given["parsing"].any():
        given["keypoints"] = np.zeros((18, 2))  # nor are there arms
    with pytest.raises(ValueError, match=message):
        agnostic_mask(given["parsing"], given["keypoints"], category=given["category"])


def test_the_result_is_a_picture_that_the_pipeline_takes() -> None:
    assert isinstance(agnostic_mask(parsing(), POINTS), Image.Image)
