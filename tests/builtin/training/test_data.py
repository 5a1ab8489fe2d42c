"""Picture sets: drawn once, split by character, pairs of one character."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from referencenet.builtin.training.data import PictureSet, character_seeds, draw_set, tensors_to_pictures, to_tensors
from referencenet.paperdoll.character import split
from referencenet.paperdoll.maps import segmentation
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    draw_set(folder, which="validation", characters=3, scenes=4, workers=1)
    return folder


def test_set_holds_what_its_records_say(drawn: Path) -> None:
    pictures = PictureSet.open(drawn)
    assert pictures.pictures.shape == pictures.skeletons.shape == (12, 64, 64, 3)
    assert pictures.keypoints.shape == (12, 18, 3)
    assert pictures.parts.shape == (12, 64, 64)
    record = pictures.records[5]
    scene = Scene.from_seeds(record["character"], record["scene"])
    assert np.array_equal(pictures.pictures[5], render(scene))
    assert np.array_equal(pictures.parts[5], segmentation(scene))
    assert len({record["character"] for record in pictures.records}) == 3
    assert all(split(record["character"]) == "validation" for record in pictures.records)


def test_together_are_different_pictures_of_one_character(drawn: Path) -> None:
    scenes = PictureSet.open(drawn).together(50, 3, torch.Generator().manual_seed(0))
    assert scenes.shape == (50, 3)
    assert (scenes // 4 == scenes[:, :1] // 4).all()
    assert all(len(set(row)) == 3 for row in scenes.tolist())


def test_more_pictures_than_anybody_has_are_refused(drawn: Path) -> None:
    with pytest.raises(ValueError, match="no character of this set has 5 pictures"):
        PictureSet.open(drawn).together(1, 5, torch.Generator().manual_seed(0))


def test_set_is_drawn_once(drawn: Path) -> None:
    before = (drawn / "pictures.npy").stat().st_mtime_ns
    draw_set(drawn, which="validation", characters=3, scenes=4, workers=1)
    assert (drawn / "pictures.npy").stat().st_mtime_ns == before


def test_half_a_set_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no whole picture set"):
        PictureSet.open(tmp_path)


def test_splits_do_not_meet() -> None:
    seeds = [set(character_seeds(which, 20)) for which in ("train", "validation", "test")]
    assert len(seeds[0] | seeds[1] | seeds[2]) == 60


def test_pictures_survive_the_way_to_tensors_and_back() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), dtype=np.uint8)
    assert np.array_equal(tensors_to_pictures(to_tensors(pictures)), pictures)
