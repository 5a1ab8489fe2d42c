"""The face of a portrait that is to speak: found, or refused with a lesson."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fetched import MODELS, needs_models
from referencenet.preprocess.one_face import check_face, find_landmarks, nose_place
from talking import face_points

SIZE = (64, 64)


def astronaut() -> Image.Image:
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photograph")
    return Image.fromarray(data.astronaut()).crop((120, 0, 340, 220))


def test_a_face_that_looks_at_the_camera_passes_in_silence() -> None:
    assert list(check_face(face_points(), SIZE)) == []
    assert list(check_face(face_points(yaw=20), SIZE)) == []
    assert nose_place(face_points()) == pytest.approx(0.5)


def test_turning_by_thirty_degrees_is_told_and_a_profile_refused() -> None:
    for yaw in (32, -35):
        (told,) = check_face(face_points(yaw=yaw), SIZE)
        assert "turned by about 30 degrees" in told
    for yaw in (40, 60, -80):
        with pytest.raises(ValueError, match="in profile.* looks at the camera"):
            check_face(face_points(yaw=yaw), SIZE)


@pytest.mark.parametrize(
    ("middle", "border"), [((0.2, 0.5), "left"), ((0.9, 0.5), "right"), ((0.5, 0.1), "upper"), ((0.5, 0.9), "lower")]
)
def test_a_face_that_a_border_cuts_is_refused(middle: tuple[float, float], border: str) -> None:
    with pytest.raises(ValueError, match=f"cut off by the picture's {border} border: .*whole face"):
        check_face(face_points(middle=middle), SIZE)
    assert list(check_face(face_points(middle=(0.31, 0.5)), SIZE)) == []  # a cheek outside by a few pixels


def test_landmarks_of_another_unit_are_told() -> None:
    with pytest.raises(ValueError, match="0.60 x 0.74 pixels large; give landmarks in pixels"):
        check_face(face_points(1), SIZE)


def test_a_small_face_is_told() -> None:
    (told,) = check_face(face_points(share=0.2), SIZE)
    assert "20% as wide as the picture; crop it" in told


@needs_models
def test_the_only_face_is_found_and_may_speak() -> None:
    found = find_landmarks(astronaut(), MODELS)
    assert found.shape == (468, 3)
    assert list(check_face(found, (220, 220))) == []
    assert abs(nose_place(found[:, :2]) - 0.5) < 0.2


@needs_models
def test_no_face_and_two_faces_are_refused() -> None:
    with pytest.raises(ValueError, match="no face was found in the portrait of 64 x 64 pixels; give one"):
        find_landmarks(Image.new("RGB", SIZE, "grey"), MODELS)
    both = Image.new("RGB", (440, 220))
    both.paste(astronaut(), (0, 0))
    both.paste(astronaut(), (220, 0))
    with pytest.raises(ValueError, match="2 faces were found.*--person 1 is the first from the left"):
        find_landmarks(both, MODELS)
    left, right = (find_landmarks(both, MODELS, person) for person in (1, 2))
    assert np.abs(right[:, :2] - left[:, :2] - (220, 0)).max() < 3
    with pytest.raises(ValueError, match="face 3 from the left was asked for, but .* shows 2"):
        find_landmarks(both, MODELS, 3)


def test_missing_networks_are_told(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT runs the networks")
    with pytest.raises(FileNotFoundError, match="refnet models fetch"):
        find_landmarks(Image.new("RGB", SIZE), tmp_path)
