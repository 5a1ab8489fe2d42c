"""Maps of patterns and emblems: where they would lie, they lie when they are worn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from referencenet.paperdoll.cloth_maps import CLOTHS, cloth_maps
from referencenet.paperdoll.maps import garment_mask
from referencenet.paperdoll.palette import CLOTH, channels
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene


def scene(character: int = 5, view: str = "front") -> Scene:
    return Scene.from_seeds(character, 11, shot="full body", view=view, pose="standing")


def wearing(given: Scene, **clothes: str) -> Scene:
    return replace(given, character=replace(given.character, **clothes))


@pytest.mark.parametrize("cloth", [cloth for cloth in CLOTHS if cloth[0] in ("striped", "checked", "two-tone")])
def test_pixels_of_a_map_have_the_patterns_colour(cloth: tuple[str, str]) -> None:
    size, colours = 192, {"upper_colour": "yellow", "pattern_colour": "blue"}
    worn = wearing(scene(), upper="sweater", lower="trousers", pattern=cloth[0], emblem="none", **colours)
    shown = cloth_maps(worn, size)[CLOTHS.index(cloth)]
    picture, garment = render(worn, size).astype(float), garment_mask(worn, size)
    far = [np.abs(picture - channels(CLOTH[colours[name]])).sum(axis=2) for name in ("pattern_colour", "upper_colour")]
    is_pattern = far[0] < far[1]
    assert is_pattern[(shown > 0.9) & garment].mean() > 0.97
    lit = garment & (picture.sum(axis=2) > 300)  # outlines and folds are neither
    assert is_pattern[(shown < 0.05) & lit].mean() < 0.1
    assert 0.1 < (shown > 0.5)[garment].mean() < 0.7


def test_what_is_worn_does_not_matter() -> None:
    plain = wearing(scene(), pattern="plain", emblem="none", upper_colour="red")
    dotted = wearing(plain, pattern="dotted", upper_colour="white", pattern_colour="green", emblem="star")
    assert np.array_equal(cloth_maps(plain), cloth_maps(dotted))


def test_emblems_are_in_front_and_every_map_is_another() -> None:
    emblems = [i for i, (_, emblem) in enumerate(CLOTHS) if emblem != "none"]
    front, back = (cloth_maps(wearing(scene(view=view), upper="sweater"), (64, 80)) for view in ("front", "back"))
    assert front.shape == (len(CLOTHS), 80, 64)
    assert front.dtype == np.float32
    assert not back[emblems].any()
    assert back[: emblems[0]].any(axis=(1, 2)).all()
    for i in range(len(CLOTHS)):
        for j in range(i):
            assert np.abs(front[i] - front[j]).sum() > 2
