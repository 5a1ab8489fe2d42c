"""Maps against the picture: change one thing in the world, and the pixels that change are the ones the map names."""

from dataclasses import replace

import numpy as np
import pytest

from referencenet.paperdoll.character import Character
from referencenet.paperdoll.maps import (
    PARTS,
    dense_map,
    dense_picture,
    face_mask,
    garment_mask,
    grown,
    lip_mask,
    part_mask,
    segmentation,
)
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.skeleton import KEYPOINT_NAMES, keypoints

SIZE = 128


def _changed(first: Scene, second: Scene) -> np.ndarray:
    return np.abs(render(first, SIZE).astype(int) - render(second, SIZE)).max(axis=-1) > 24


def _plain(seed: int, **changes: object) -> Scene:
    scene = Scene.from_seeds(seed, seed)
    return replace(scene, character=replace(scene.character, pattern="plain", emblem="none", **changes))


@pytest.mark.parametrize("seed", range(8))
def test_garment_mask_is_where_the_garment_changes_colour(seed):
    first, second = (_plain(seed, upper="sweater", upper_colour=colour) for colour in ("red", "teal"))
    changed, mask = _changed(first, second), garment_mask(first, SIZE)
    assert mask.any()
    assert not (changed & ~grown(mask, 1)).any()
    inside = ~grown(~mask, 3)  # away from the dark line
    assert (changed & inside).sum() > 0.97 * inside.sum()


@pytest.mark.parametrize(
    ("field", "values", "parts"),
    [
        ("lower_colour", ("red", "blue"), ("lower garment",)),
        ("shoe_colour", ("red", "white"), ("right shoe", "left shoe")),
        ("hair_colour", ("black", "white"), ("hair", "beard", "face", "right ear", "left ear", "glasses")),
        ("skin", ("porcelain", "ebony"), ("face", "neck", "nose", "mouth", "hair", "right ear", "left ear")),
        ("eye_colour", ("brown", "blue"), ("right eye", "left eye")),
    ],
)
def test_parts_are_where_their_colours_change(field, values, parts):
    limbs = ("right arm", "left arm", "right hand", "left hand", "right leg", "left leg") if field == "skin" else ()
    for seed in range(3):
        first, second = (_plain(seed, **{field: value}) for value in values)
        mask = grown(part_mask(segmentation(first, SIZE), *parts, *limbs), 1)
        assert not (_changed(first, second) & ~mask).any()


def test_background_is_where_the_background_changes():
    scene = Scene.from_seeds(3, 3, background="plain")
    other = replace(
        scene, background=replace(scene.background, colour="pink" if scene.background.colour != "pink" else "blue")
    )
    figure = segmentation(scene, SIZE) > 0
    assert not (_changed(scene, other) & ~grown(~figure, 1)).any()


def test_lips_are_where_the_mouth_moves():
    scene = Scene.from_seeds(3, 3, shot="portrait", pose=Pose.named("standing"), expression="neutral")
    scene = replace(scene, character=replace(scene.character, beard=False))
    wide = replace(scene, expression=replace(scene.expression, mouth=1.0))
    lips = lip_mask(scene, SIZE) | lip_mask(wide, SIZE)
    assert not (_changed(scene, wide) & ~grown(lips, 1)).any()
    assert lip_mask(wide, SIZE).sum() > 2 * lip_mask(scene, SIZE).sum()
    assert not (lip_mask(wide, SIZE) & ~face_mask(wide, SIZE)).any()


@pytest.mark.parametrize("size", [64, 512, (96, 128), (131, 77)])
def test_maps_hold_only_numbers_of_parts(size):
    parts, dense = segmentation(Scene.from_seeds(4, 4), size), dense_map(Scene.from_seeds(4, 4), size)
    assert parts.max() < len(PARTS)
    assert dense[..., 0].max() <= 24
    assert np.array_equal(dense[..., 0] > 0, parts > 0)
    assert dense_picture(dense).shape == dense.shape


def test_dense_map_follows_the_body():
    scene = Scene(character=replace(Character.from_seed(2), hair_style="short", hat="none"), pose=Pose.named("t-pose"))
    dense, points = dense_map(scene, 256), keypoints(scene, 256)
    at = {
        name: dense[int(y * 256), int(x * 256)].astype(int)
        for name, (x, y, _) in zip(KEYPOINT_NAMES, points, strict=True)
    }
    assert abs(at["nose"][1] - 128) < 8  # the nose is where the head's longitude is 0
    assert at["right eye"][0] == 23
    assert at["left eye"][0] == 24
    assert at["right knee"][0] in (9, 13)
    assert at["left wrist"][0] in (4, 21)
    assert at["right shoulder"][2] < 40  # V counts from the shoulder
    assert at["right elbow"][2] > 215 or at["right elbow"][2] < 40


def test_dense_map_turns_to_the_back():
    views = [
        dense_map(Scene(character=Character.from_seed(2), pose=Pose.named("t-pose", v)), 96) for v in ("front", "back")
    ]
    numbers = [set(np.unique(view[..., 0]).tolist()) for view in views]
    assert {2, 17, 18} <= numbers[0]
    assert {1, 15, 16} <= numbers[1]
    assert 1 not in numbers[0]
    assert 2 not in numbers[1]


def test_unknown_parts_are_refused():
    with pytest.raises(ValueError, match="unknown part tail; expected some of background"):
        part_mask(np.zeros((4, 4), dtype=np.uint8), "tail")


def test_grown_masks_grow_by_a_square():
    mask = np.zeros((7, 9), dtype=bool)
    mask[3, 4] = True
    assert np.argwhere(grown(mask, 2)).tolist() == [[y, x] for y in range(1, 6) for x in range(2, 7)]
    assert np.array_equal(grown(mask, 0), mask)
