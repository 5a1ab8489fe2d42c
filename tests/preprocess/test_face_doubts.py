"""Faces that should not be trusted are named, and portraits of which too little is seen refused with a lesson."""

import numpy as np
import pytest

from heads import head, weakly_seen
from referencenet.preprocess.face_doubts import (
    CUT_OFF,
    IN_PROFILE,
    TOO_SMALL,
    TURNED,
    check_face,
    face_doubt,
    face_turn,
)
from referencenet.preprocess.metric_face import APPROXIMATE, metric_face
from talking import face_points

SIZE = (64, 64)
LEFT, UPPER, RIGHT, LOWER = CUT_OFF


@pytest.mark.parametrize(
    ("pose", "doubt"),
    [
        ((0, 0, 0, 0, 0, -60), None),
        ((10, 30, -10, 0, 0, -60), None),
        ((0, 52, 0, 0, 0, -60), TURNED),
        ((0, -52, 25, 0, 0, -60), TURNED),
        ((0, 80, 0, 0, 0, -60), IN_PROFILE),
        ((0, 0, 0, -30, 0, -60), LEFT),
        ((0, 0, 0, 0, 33, -60), UPPER),
        ((0, 0, 0, 0, 0, -900), TOO_SMALL),
    ],
)
def test_faces_that_cannot_be_trusted_are_named(pose: tuple[float, ...], doubt: str | None) -> None:
    points = weakly_seen(head(), np.array(pose, dtype=float), (512, 512))
    assert face_doubt(points, (512, 512)) == doubt
    assert face_doubt(points[:, :2], (512, 512)) == doubt  # without depth as well
    if doubt in (TURNED, IN_PROFILE):
        _, matrix = metric_face(points, (512, 512), APPROXIMATE)
        assert face_turn(matrix) == pytest.approx(abs(pose[1]), abs=6)
        assert face_doubt(points, (512, 512), np.eye(4)) is None  # by the matrix, where it is known


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_turned_face_is_told_and_a_profile_refused(dimensions: int) -> None:
    for yaw in (0, 20, -30):
        assert check_face(face_points(yaw=yaw)[:, :dimensions], SIZE) is None
    for yaw in (52, -58):
        told = check_face(face_points(yaw=yaw)[:, :dimensions], SIZE)
        assert told == f"the face is {TURNED}; what is made of it may be wrong there."
    for yaw in (70, -80):
        with pytest.raises(ValueError, match=r"in profile: .* looks at the camera"):
            check_face(face_points(yaw=yaw)[:, :dimensions], SIZE)


@pytest.mark.parametrize(
    ("middle", "border"), [((0.2, 0.5), "left"), ((0.9, 0.5), "right"), ((0.5, 0.1), "upper"), ((0.5, 0.9), "lower")]
)
def test_a_face_that_a_border_cuts_is_refused_by_name(middle: tuple[float, float], border: str) -> None:
    points = face_points(middle=middle)
    with pytest.raises(ValueError, match=f"cut off by the {border} border: give a picture with the whole face"):
        check_face(points, SIZE)
    assert f"cut off by the {border} border" in (check_face(points, SIZE, refused=(IN_PROFILE,)) or "")
    assert check_face(face_points(middle=(0.29, 0.5)), SIZE) is None  # a cheek outside by a few pixels


def test_landmarks_of_another_unit_are_told() -> None:
    with pytest.raises(ValueError, match=r"0\.60 x 0\.7\d pixels large; give landmarks in pixels"):
        check_face(face_points(1), SIZE)
