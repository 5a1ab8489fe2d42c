"""Try-on pictures: the garment alone, and the person without a trace of it."""

from dataclasses import replace

import numpy as np
import pytest

from referencenet.paperdoll.character import UPPERS, Character
from referencenet.paperdoll.maps import garment_mask, part_mask, segmentation
from referencenet.paperdoll.palette import CLOTH, channels
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.tryon import GREY, agnostic, agnostic_mask, flat_lay, flat_lay_mask

SIZE = 128


@pytest.mark.parametrize("upper", sorted(UPPERS))
@pytest.mark.parametrize("lower", ["trousers", "dress"])
@pytest.mark.parametrize("size", [96, (72, 96)])
def test_flat_garment_is_whole_and_alone(upper, lower, size):
    who = replace(Character.from_seed(2), upper=upper, lower=lower, upper_colour="blue", pattern="plain")
    picture, mask = flat_lay(who, size), flat_lay_mask(who, size)
    assert 0.1 < mask.mean() < 0.8
    assert not mask[[0, -1]].any()  # nothing is cut off
    assert not mask[:, [0, -1]].any()
    assert (np.abs(picture.astype(int) - 255).max(axis=-1)[~mask] < 170).all()  # but for half-covered edge pixels
    assert np.abs(picture[mask].astype(int) - channels(CLOTH["blue"])).max(axis=-1).min() == 0


def test_flat_garment_does_not_depend_on_who_wears_it():
    who = Character.from_seed(2)
    other = replace(who, skin="ebony" if who.skin != "ebony" else "rosy", hair_style="long", face="oval", glasses=True)
    assert np.array_equal(flat_lay(who), flat_lay(other))


@pytest.mark.parametrize("seed", range(6))
def test_agnostic_person_tells_nothing_of_the_garment(seed):
    scene = Scene.from_seeds(seed, seed, view="front", pose="standing")
    scene = replace(scene, character=replace(scene.character, upper="t-shirt", lower="trousers"))
    other = replace(scene.character, upper_colour="teal", pattern="checked", pattern_colour="red", emblem="none")
    pictures = [agnostic(replace(scene, character=who), SIZE).astype(int) for who in (scene.character, other)]
    assert (np.abs(pictures[0] - pictures[1]).max(axis=-1) > 16).mean() < 0.004  # edge pixels at head and hands


def test_agnostic_person_keeps_head_hands_and_legs():
    scene = Scene.from_seeds(4, 4)
    hidden, picture = agnostic_mask(scene, SIZE), agnostic(scene, SIZE)
    assert not (garment_mask(scene, SIZE) & ~hidden).any()
    assert (picture[hidden] == GREY).all()
    kept = part_mask(segmentation(scene, SIZE), "face", "hair", "right hand", "lower garment")
    assert np.array_equal(picture[kept], render(scene, SIZE)[kept])
