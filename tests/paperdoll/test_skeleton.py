"""Key points lie on the parts they name; skeletons are drawn in OpenPose's colours."""

from dataclasses import replace

import numpy as np
import pytest

from referencenet.paperdoll.character import Character
from referencenet.paperdoll.maps import PARTS, segmentation
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.scene import Camera, Expression, Scene
from referencenet.paperdoll.skeleton import COLOURS, KEYPOINT_NAMES, LIMBS, draw_skeleton, keypoints, skeleton

ON = {
    "nose": {"nose"},
    "neck": {"neck", "upper garment", "face", "beard", "mouth"},  # behind a big head's chin
    "eye": {"eye", "glasses"},
    "ear": {"ear", "face", "hair", "hat"},
    "shoulder": {"upper garment", "arm", "hair"},
    "elbow": {"arm", "upper garment"},
    "wrist": {"arm", "hand", "upper garment"},
    "hip": {"upper garment", "lower garment"},
    "knee": {"leg", "lower garment", "upper garment"},
    "ankle": {"leg", "shoe", "lower garment"},
}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [192, (120, 160)])
def test_key_points_lie_on_the_parts_they_name(seed, size):
    scene = Scene(
        character=replace(Character.from_seed(seed), hat="none", hair_style="short"),
        pose=Pose.named("t-pose"),
        expression=Expression.named("surprised"),
    )
    parts, points = segmentation(scene, size), keypoints(scene, size)
    assert points[:, 2].tolist() == [1.0] * 18
    height, width = parts.shape
    for name, (x, y, _) in zip(KEYPOINT_NAMES, points, strict=True):
        part = PARTS[parts[int(y * height), int(x * width)]]
        joint = name.removeprefix("right ").removeprefix("left ")
        assert part.removeprefix("right ").removeprefix("left ") in ON[joint], (name, part)
        if part.startswith(("right", "left")):
            assert part.split()[0] == name.split()[0]


def test_visible_joints_lie_on_the_figure_in_every_scene():
    for seed in range(40):
        scene = Scene.from_seeds(seed, seed)
        parts = segmentation(scene, 96)
        for x, y, seen in keypoints(scene, 96)[1:14]:
            if seen:
                assert parts[min(95, int(y * 96)), min(95, int(x * 96))] != PARTS.index("background")


def test_faces_are_hidden_from_behind():
    points = keypoints(Scene(character=Character.from_seed(1), pose=Pose.named("standing", "back")))
    seen = dict(zip(KEYPOINT_NAMES, points[:, 2], strict=True))
    assert seen["nose"] == seen["right eye"] == seen["left eye"] == 0
    assert seen["neck"] == seen["right wrist"] == 1


def test_points_outside_the_picture_are_not_visible():
    scene = Scene(character=Character.from_seed(1), camera=Camera(shot="portrait"))
    seen = dict(zip(KEYPOINT_NAMES, keypoints(scene)[:, 2], strict=True))
    assert seen["nose"] == 1
    assert seen["right ankle"] == 0


def test_joints_are_drawn_in_their_published_colours():
    scene = Scene(character=Character.from_seed(1), pose=Pose.named("t-pose"))
    picture, points = skeleton(scene, 512), keypoints(scene, 512)
    for (x, y, _), colour in zip(points, COLOURS, strict=True):
        assert tuple(picture[int(y * 512), int(x * 512)]) == colour


def test_limbs_have_the_darkened_colour_of_their_number():
    points = np.zeros((18, 3), dtype=np.float32)
    for number, (a, b) in enumerate(LIMBS):
        points[:] = 0
        points[a], points[b] = (0.2, 0.5, 1), (0.8, 0.5, 1)
        assert tuple(draw_skeleton(points, 64)[32, 32]) == tuple(int(c * 0.6) for c in COLOURS[number])


def test_hidden_points_draw_nothing():
    assert draw_skeleton(np.zeros((18, 3), dtype=np.float32), (32, 48)).max() == 0
