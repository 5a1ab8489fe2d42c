"""The guider's context: which maps are drawn, that they are learned, and that the ReferenceNet leaves it as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from referencenet.builtin.training.data import PictureSet, draw_set
from referencenet.builtin.training.guider import GuiderRecipe, draw_maps
from referencenet.networks.pose_guider import PoseContext
from referencenet.paperdoll.cloth_maps import CLOTHS, cloth_maps
from referencenet.paperdoll.scene import Scene
from referencenet.training.config import OptimizerConfig, RunConfig
from referencenet.training.loop import fit


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return draw_set(tmp_path_factory.mktemp("set"), characters=6, scenes=4, workers=1)


def test_maps_are_of_each_characters_first_whole_figure_and_are_drawn_once(
    pictures: PictureSet, tmp_path: Path
) -> None:
    path = tmp_path / "cloth.npy"
    index, maps = draw_maps(path, pictures, workers=1)
    shots = [record["attributes"]["shot"] for record in pictures.records]
    expected = [next((i for i in range(c, c + 4) if shots[i] == "full body"), None) for c in range(0, 24, 4)]
    assert index.tolist() == [i for i in expected if i is not None]
    record = pictures.records[int(index[1])]
    drawn = cloth_maps(Scene.from_seeds(record["character"], record["scene"]))
    means = drawn.reshape(len(CLOTHS), 32, 2, 32, 2).mean(axis=(2, 4))
    assert np.abs(maps[1].numpy() / 255 - means).max() < 0.005
    np.save(path, maps.numpy() * 0)
    assert not draw_maps(path, pictures)[1].any()
    assert [file.name for file in tmp_path.iterdir()] == ["cloth.npy"]


def test_context_learns_where_patterns_lie(pictures: PictureSet, tmp_path: Path) -> None:
    index, maps = draw_maps(tmp_path / "cloth.npy", pictures, workers=1)
    recipe = GuiderRecipe(PoseContext(channels=8), pictures.skeletons[index.numpy()], maps, batch=4)
    before = float(recipe.loss(0)["unexplained"])
    optimizer = OptimizerConfig(learning_rate=4e-3, warmup=5, cooldown=0.3)
    fit(recipe, tmp_path / "run", RunConfig(steps=80, average=0.5, optimizer=optimizer), quiet=True)
    assert before > 0.9
    assert float(recipe.loss(0)["unexplained"]) < 0.6 * before
    assert [sheet.name for sheet in (tmp_path / "run" / "sheets").iterdir()] == ["000080.png"]
