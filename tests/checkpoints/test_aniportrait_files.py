"""AniPortrait's released files: read strictly, and every fault told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from films import generator, picture, write_released
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.manifest import KEY_LISTS
from referencenet.checkpoints.published import share_of
from referencenet.cli.manifests import run_manifests
from referencenet.methods.aniportrait import PUBLISHED, AniPortraitPipeline
from referencenet.preprocess.face_mesh import FaceMeshFilm
from tiny import tiny_pipeline
from tolerances import relative_error

MANIFESTS = sorted(KEY_LISTS.glob("aniportrait-*.json.gz"))
DRAWINGS = FaceMeshFilm(np.random.default_rng(0).random((2, 468, 2)), width=64, height=64)


def film(pipe: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe(picture(0), DRAWINGS, num_inference_steps=1, generator=generator(), output_type="latent").frames


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return write_released(tiny_pipeline("aniportrait"), PUBLISHED, tmp_path / "released")


def read(folder: Path) -> AniPortraitPipeline:
    return AniPortraitPipeline.from_published(folder, base=folder / "base")


def test_released_files_give_the_film_of_the_model(released: Path) -> None:
    assert relative_error(film(read(released)), film(tiny_pipeline("aniportrait"))) < 1e-4


def test_a_guider_without_running_statistics_is_told(released: Path) -> None:
    state = torch.load(released / "pose_guider.pth", weights_only=True)
    del state["conv_layers.1.running_mean"]
    torch.save(state, released / "pose_guider.pth")
    with pytest.raises(CheckpointError, match=r"lacks 1 of its keys: conv_layers\.1\.running_mean"):
        read(released)


def test_another_systems_guider_is_told(released: Path) -> None:
    torch.save({"conv_in.weight": torch.zeros(16, 3, 3, 3)}, released / "pose_guider.pth")
    with pytest.raises(CheckpointError, match="1 keys that LandmarkGuider does not have: conv_in.weight"):
        read(released)


def test_every_tensor_is_brought_by_exactly_one_file() -> None:
    for component in PUBLISHED.components:
        network = PUBLISHED.build[component](PUBLISHED.tiny_config)
        shares = [share_of(network, file) for file in PUBLISHED.files_of(component)]
        assert sum(map(len, shares)) == len(network.state_dict()) == len(set().union(*shares))


@pytest.mark.slow
def test_key_lists_at_full_size_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_manifests(MANIFESTS, tmp_path / "manifests.json") == 0
    assert "6 of 6 manifests passed, 2718 keys" in capsys.readouterr().out
