"""Sheets: several figures, each in its own panel."""

import numpy as np
import pytest

from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.sheet import sheet, turnaround


def test_panels_are_the_pictures():
    scenes = [Scene.from_seeds(2, seed) for seed in range(3)]
    picture = sheet(scenes, columns=2, size=(32, 48), gutter=3)
    assert picture.shape == (2 * 48 + 3, 2 * 32 + 3, 3)
    assert np.array_equal(picture[:48, 35:], render(scenes[1], (32, 48)))
    assert np.array_equal(picture[51:, :32], render(scenes[2], (32, 48)))
    assert (picture[51:, 35:] == 255).all()


def test_turnaround_goes_once_around():
    views = turnaround(Scene.from_seeds(2, 1, pose="standing", view="front"), 8)
    assert len(views) == 8
    assert {scene.pose.view for scene in views} == {"front", "left", "right", "back"}
    steps = np.diff([scene.pose.yaw for scene in views]) % 360
    assert steps == pytest.approx(45)


def test_empty_sheets_are_refused():
    with pytest.raises(ValueError, match="scenes is empty"):
        sheet([], 2)
    with pytest.raises(ValueError, match="columns is 0"):
        sheet([Scene.from_seeds(1, 1)], 0)
    with pytest.raises(ValueError, match="num_views is 0"):
        turnaround(Scene.from_seeds(1, 1), 0)
