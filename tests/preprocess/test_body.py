"""Key points in files, and their drawing."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from referencenet.paperdoll import Character, Pose, Scene, keypoints
from referencenet.preprocess import BodyPoints, SkeletonFilm, draw_body, only_person, read_key_points
from referencenet.preprocess.body import LIMBS, NOBODY

SIZE = (384, 512)


def person(pose: str = "t-pose", size: tuple[int, int] = SIZE) -> BodyPoints:
    found = keypoints(Scene(character=Character.from_seed(1), pose=Pose.named(pose)), size).astype(np.float64)
    return BodyPoints(body=found * (*size, 1))


# --- the drawing ------------------------------------------------------------------------------------------------------


def test_limbs_have_their_colour_dimmed_and_joints_bright() -> None:
    image = np.asarray(draw_body(person(), SIZE))
    body = person().body
    for limb, colour in ((2, (153, 102, 0)), (10, (0, 102, 153)), (12, (0, 0, 153))):  # upper arm, thigh, neck to nose
        x, y = body[list(LIMBS[limb]), :2].mean(axis=0)
        assert tuple(image[int(y), int(x)]) == colour
    for joint, colour in ((0, (255, 0, 0)), (4, (170, 255, 0)), (13, (85, 0, 255))):
        x, y = body[joint, :2]
        assert tuple(image[int(y), int(x)]) == colour
    assert not image[:5].any()


@pytest.mark.parametrize("scale", [1, 2])
def test_a_limb_is_eight_pixels_wide_where_the_shorter_side_is_512(scale: int) -> None:
    body = np.zeros((18, 3))
    body[[2, 3]] = [[100 * scale, 256 * scale, 1], [400 * scale, 256 * scale, 1]]
    lit = np.asarray(draw_body(BodyPoints(body=body), (512 * scale, 512 * scale))).any(axis=2)
    assert lit[:, 250 * scale].sum() == pytest.approx(8 * scale, abs=1.5)
    assert lit[:, 110 * scale].sum() < 6 * scale  # limbs taper


def test_doubtful_points_are_not_drawn() -> None:
    body = person().body.copy()
    body[:, 2] = 0.29
    assert not np.asarray(draw_body(BodyPoints(body=body), SIZE)).any()


def test_hands_and_faces_are_drawn_where_they_are_given() -> None:
    hand = np.column_stack([np.linspace(20, 120, 21), np.linspace(30, 90, 21), np.ones(21)])
    face = np.column_stack([np.linspace(200, 300, 68), np.full(68, 40), np.ones(68)])
    image = np.asarray(draw_body(BodyPoints(body=NOBODY.body, right_hand=hand, face=face), SIZE))
    assert tuple(image[30, 20]) == (0, 0, 255)
    assert tuple(image[40, 250]) == (255, 255, 255)


def test_film_is_drawn_when_it_is_read() -> None:
    film = SkeletonFilm([person(), NOBODY, person("waving")], SIZE, Fraction(12))
    assert (len(film), film.rate) == (3, 12)
    assert [bool(np.asarray(frame).any()) for frame in film] == [True, False, True]
    assert [frame.size for frame in film] == [SIZE] * 3
    with pytest.raises(ValueError, match="a film of 2 frames shows no one"):
        SkeletonFilm([NOBODY, NOBODY], SIZE)


# --- files ------------------------------------------------------------------------------------------------------------


def frame(points: BodyPoints, people: int = 1, **further: Any) -> dict[str, Any]:
    return {"people": [{"pose_keypoints_2d": points.body.ravel().tolist()}] * people} | further


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_films_are_read_from_a_file_and_from_a_folder(tmp_path: Path) -> None:
    poses = [person("standing"), person("waving")]
    (tmp_path / "folder").mkdir()
    for i, pose in enumerate(poses):
        write(tmp_path / "folder" / f"{i:04d}_keypoints.json", frame(pose))
    whole = write(tmp_path / "film.json", [frame(pose, canvas_width=384, canvas_height=512) for pose in poses])
    for path, size in ((tmp_path / "folder", None), (whole, SIZE)):
        frames, found = read_key_points(path)
        assert found == size
        assert all(np.allclose(ours.body, pose.body) for ours, pose in zip(frames, poses, strict=True))


def test_fractions_of_the_canvas_and_openpose_s_25_points_are_understood(tmp_path: Path) -> None:
    body = person().body
    small = BodyPoints(body=body / (*SIZE, 1))
    (found,), _ = read_key_points(write(tmp_path / "a.json", frame(small, canvas_width=384, canvas_height=512)))
    assert np.allclose(found.body, body)
    more = np.vstack([body[:8], [[7, 7, 1]], body[8:], np.full((6, 3), 9)])
    (found,), _ = read_key_points(
        write(tmp_path / "b.json", {"people": [{"pose_keypoints_2d": more.ravel().tolist()}]})
    )
    assert np.allclose(found.body, body)


def test_points_alone_are_a_frame_and_the_origin_is_unseen(tmp_path: Path) -> None:
    points = [[float(i), 2.0 * i] for i in range(18)]
    frames, _ = read_key_points(write(tmp_path / "a.json", points))
    assert len(frames) == 1
    assert frames[0].body[:, 2].tolist() == [0.0] + [1.0] * 17
    assert len(read_key_points(write(tmp_path / "b.json", [points, points]))[0]) == 2


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"people": [{}, {}]}, r"2 people are seen in .*a.json; exactly one is needed"),
        ({"people": [{"pose_keypoints_2d": [1.0] * 51}]}, r"the body are \(17, 3\); expected \(18, 3\)"),
        ({"people": [{"pose_keypoints_2d": [1.0] * 50}]}, "numbers of shape \\(50,\\) in pose_keypoints_2d"),
        ({"people": [{"face_keypoints_2d": [1.0]}]}, "a person without pose_keypoints_2d"),
        ({"faces": []}, "has no list of people"),
        ([[1, 2]] * 17, r"are \(17, 2\); expected \(18, 3\)"),
        ([[float("nan"), 2]] * 18, "NaN or infinite"),
    ],
)
def test_files_that_hold_something_else_are_told(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_key_points(write(tmp_path / "a.json", document))


def test_missing_and_broken_files_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "no.json", tmp_path):
        with pytest.raises(FileNotFoundError, match="there are no key points at"):
            read_key_points(path)
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match=r"b.json is not JSON"):
        read_key_points(tmp_path / "b.json")


@pytest.mark.parametrize(("count", "words"), [(0, "no people are seen in the picture"), (2, "2 people are seen")])
def test_one_person_is_needed(count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        only_person([NOBODY] * count)
    assert only_person([NOBODY]) is NOBODY
