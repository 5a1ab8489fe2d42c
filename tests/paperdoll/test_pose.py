"""Poses: joints in space that stand on the ground, keep their bones, and turn."""

import numpy as np
import pytest

from referencenet.paperdoll.character import Character
from referencenet.paperdoll.pose import GROUND, POSES, Pose, joints

WHO = Character.from_seed(3)
BONES = [("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")]


@pytest.mark.parametrize("name", sorted(POSES))
def test_lowest_foot_stands_on_the_ground_unless_lifted(name):
    pose = Pose.named(name)
    found = joints(WHO, pose)
    assert max(found["right ankle"][1], found["left ankle"][1]) == pytest.approx(GROUND - 3 - pose.lift)


@pytest.mark.parametrize("seed", range(5))
def test_bones_keep_their_length_in_every_pose(seed):
    plain, posed = joints(WHO, Pose()), joints(WHO, Pose.from_seed(seed))
    for side in ("right", "left"):
        for start, end in BONES:
            lengths = [np.linalg.norm(j[f"{side} {end}"] - j[f"{side} {start}"]) for j in (plain, posed)]
            assert lengths[0] == pytest.approx(lengths[1])


def test_mirrored_pose_is_the_mirror_image():
    plain, mirrored = joints(WHO, Pose.named("waving")), joints(WHO, Pose.named("waving", mirrored=True))
    for joint in ("elbow", "wrist", "knee"):
        assert plain[f"right {joint}"] * (-1, 1, 1) == pytest.approx(mirrored[f"left {joint}"])


def test_right_hand_is_at_the_left_of_the_picture_from_the_front_only():
    sides = {view: joints(WHO, Pose.named("t-pose", view))["right wrist"][0] for view in ("front", "back")}
    assert sides["front"] < 0 < sides["back"]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="pose is 'flying'; expected one of arms crossed"):
        Pose.named("flying")
    with pytest.raises(ValueError, match="view is 'above'; expected one of front"):
        Pose.named("waving", "above")


def test_fixed_names_leave_the_rest_as_drawn():
    drawn = Pose.from_seed(4)
    assert Pose.from_seed(4, view="left").name == drawn.name
    assert Pose.from_seed(4, name="waving").view in ("front", "left", "right", "back")
    assert Pose.from_seed(4, name="waving").head_tilt == drawn.head_tilt
