"""Face boxes and landmarks against key points and maps."""

from dataclasses import replace

import numpy as np
import pytest

from referencenet.paperdoll.character import Character
from referencenet.paperdoll.landmarks import expression_mask, face_box, landmarks
from referencenet.paperdoll.maps import PARTS, face_mask, grown, lip_mask, part_mask, segmentation
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.scene import Camera, Expression, Scene
from referencenet.paperdoll.skeleton import keypoints

SIZE = 192


def _portrait(seed: int, mouth: float = 0.8, view: str = "front") -> Scene:
    who = replace(Character.from_seed(seed), hat="none", hair_style="short", beard=False, glasses=False)
    face = replace(Expression.named("laughing"), mouth=mouth)
    return Scene(character=who, pose=Pose.named("standing", view), expression=face, camera=Camera(shot="portrait"))


@pytest.mark.parametrize("seed", range(6))
def test_landmarks_lie_on_their_parts(seed):
    scene = _portrait(seed)
    parts, points = segmentation(scene, SIZE), landmarks(scene, SIZE)
    assert (points[:, 2] == 1).all()
    pixels = np.clip((points[:, :2] * SIZE).astype(int), 0, SIZE - 1)
    groups = {"right eye": range(36, 42), "left eye": range(42, 48), "mouth": range(48, 68)}
    for name, rows in groups.items():
        mask = grown(parts == PARTS.index(name), 2)
        assert all(mask[y, x] for x, y in pixels[list(rows)])
    face = grown(part_mask(parts, "face", "right ear", "left ear", "neck", "hair"), 3)
    assert all(face[y, x] for x, y in pixels[:17])


def test_landmarks_agree_with_key_points():
    scene = _portrait(2, view="left")
    points, body = landmarks(scene), keypoints(scene)
    assert points[30, :2] == pytest.approx(body[0, :2], abs=0.02)
    assert points[36:42, :2].mean(axis=0) == pytest.approx(body[14, :2], abs=0.02)


def test_an_opening_mouth_opens_its_landmarks():
    gaps = []
    for mouth in (0.0, 0.3, 0.6, 1.0):
        points = landmarks(_portrait(2, mouth))
        gaps.append(points[66, 1] - points[62, 1])
    assert gaps[0] == 0
    assert gaps == sorted(gaps)


@pytest.mark.parametrize("size", [64, (96, 128), (160, 80)])
def test_face_box_is_tight_around_the_face(size):
    for seed in range(12):
        scene = Scene.from_seeds(seed, seed)
        box = face_box(scene, size)
        mask = face_mask(scene, size)
        if box is None:
            continue
        height, width = mask.shape
        rows, columns = np.nonzero(mask)
        left, top, right, bottom = box * (width, height, width, height)
        margin = 0.04 * max(size if isinstance(size, int) else max(size), 64)
        assert left - margin <= columns.min()
        assert columns.max() <= right + margin
        assert top - margin <= rows.min()
        assert rows.max() <= bottom + margin


def test_nothing_of_a_face_from_behind():
    scene = _portrait(2, view="back")
    assert face_box(scene) is None
    assert landmarks(scene)[:, 2].max() == 0
    assert not expression_mask(scene).any()


def test_expressions_show_inside_their_mask():
    scene = _portrait(2)
    mask = expression_mask(scene, SIZE)
    assert not (mask & ~face_mask(scene, SIZE)).any()
    assert not (lip_mask(scene, SIZE) & ~grown(mask, 1)).any()
