"""MagicAnimate's released files: the whole denoiser or its motion modules over a base, and every fault told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from films import generator, picture, poses, write_released
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.manifest import KEY_LISTS
from referencenet.checkpoints.published import find_files, read_component
from referencenet.cli.manifests import run_manifests
from referencenet.methods.magic_animate import PUBLISHED, MagicAnimatePipeline
from referencenet.methods.tiny import tiny_pipeline
from referencenet.networks.layout import picture_config
from tolerances import relative_error

MANIFESTS = sorted(KEY_LISTS.glob("magic_animate-*.json.gz"))
TEMPORAL = PUBLISHED.files[0].path


def film(pipe: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe(picture(0), poses(2), num_inference_steps=1, generator=generator(), output_type="latent").frames


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return write_released(tiny_pipeline("magic_animate"), PUBLISHED, tmp_path / "released")


def read(folder: Path) -> MagicAnimatePipeline:
    return MagicAnimatePipeline.from_published(folder, base=folder / "base")


def change(folder: Path, how: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = how(torch.load(folder / TEMPORAL, weights_only=True))
    torch.save(state, folder / TEMPORAL)


def test_released_files_give_the_film_of_the_model(released: Path) -> None:
    expected = film(tiny_pipeline("magic_animate"))
    assert relative_error(film(read(released)), expected) < 1e-5
    change(released, lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}})
    assert relative_error(film(read(released)), expected) < 1e-5


def save_base(folder: Path) -> None:
    """The spatial layers of the tiny denoiser as a base model's."""
    spatial = UNet2DConditionModel(**picture_config(PUBLISHED.tiny_config))
    own = tiny_pipeline("magic_animate").unet.state_dict()
    spatial.load_state_dict({key: own[key] for key in spatial.state_dict()})
    spatial.save_pretrained(folder / "base" / "unet")


def test_motion_modules_alone_are_read_over_the_base(released: Path) -> None:
    change(released, lambda state: {f"unet.{key}": value for key, value in state.items() if "motion_modules" in key})
    save_base(released)
    assert relative_error(film(read(released)), film(tiny_pipeline("magic_animate"))) < 1e-5
    with pytest.raises(CheckpointError, match=r"would be left unset: .*or base=..., whose unet fills the rest"):
        read_component(PUBLISHED, "unet", find_files(PUBLISHED, released), PUBLISHED.tiny_config)


def test_a_whole_denoiser_with_a_hole_is_not_filled_from_the_base(released: Path) -> None:
    change(released, lambda state: {key: value for key, value in state.items() if key != "conv_out.bias"})
    save_base(released)
    with pytest.raises(CheckpointError, match=r"1 tensors of unet would be left unset: conv_out\.bias"):
        read(released)


def test_a_file_without_motion_is_told(released: Path) -> None:
    change(released, lambda state: {key: value for key, value in state.items() if "motion_modules" not in key})
    with pytest.raises(CheckpointError, match=r"temporal_attention\.ckpt lacks \d+ of its keys: .*motion_modules"):
        read(released)


@pytest.mark.slow
def test_key_lists_at_full_size_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_manifests(MANIFESTS, tmp_path / "manifests.json") == 0
    assert "3 of 3 manifests passed, 2248 keys" in capsys.readouterr().out
