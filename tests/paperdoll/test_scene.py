"""Scenes: aspects drawn independently, fixed by name or object."""

import pytest

from referencenet.paperdoll.pose import LEG_POSES, Pose
from referencenet.paperdoll.scene import Background, Camera, Expression, Scene


def test_scene_seed_gives_every_character_the_same_surroundings():
    first, second = Scene.from_seeds(1, 9), Scene.from_seeds(2, 9)
    assert first.character != second.character
    assert (first.pose, first.background, first.camera) == (second.pose, second.background, second.camera)


def test_one_fixed_aspect_leaves_the_others_alone():
    plain, fixed = Scene.from_seeds(1, 9), Scene.from_seeds(1, 9, background="beach")
    assert fixed.background.name == "beach"
    assert (fixed.pose, fixed.expression, fixed.camera) == (plain.pose, plain.expression, plain.camera)


def test_objects_are_taken_as_they_are():
    pose = Pose.named("kicking")
    assert Scene.from_seeds(1, 2, pose=pose).pose is pose


def test_close_shots_show_no_backs_and_no_leg_poses():
    for seed in range(300):
        scene = Scene.from_seeds(1, seed)
        if scene.camera.shot != "full body":
            assert scene.pose.view != "back"
            assert scene.pose.name not in LEG_POSES


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Scene.from_seeds(1, 2, hat="cap"), TypeError, "unknown override hat; expected some of background"),
        (lambda: Background(name="moon"), ValueError, "background is 'moon'; expected one of beach"),
        (lambda: Background(colour="beige"), ValueError, "background colour is 'beige'; expected one of blue"),
        (lambda: Camera(shot="feet"), ValueError, "shot is 'feet'; expected one of full body"),
        (lambda: Camera(zoom=0), ValueError, "zoom is 0; expected a number from 0.1 to 10"),
        (lambda: Expression.named("smug"), ValueError, "expression is 'smug'; expected one of angry"),
    ],
)
def test_wrong_names_are_refused_with_the_right_ones(make, error, message):
    with pytest.raises(error, match=message):
        make()
