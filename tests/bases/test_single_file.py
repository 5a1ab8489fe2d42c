"""Single files of Stable Diffusion 1, 2 and XL in the original layout: every tensor, or a line that says what lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from referencenet.bases.names import is_single_file
from referencenet.bases.single_file import from_single_file
from single_files import FAMILIES, original_state, write_single
from tiny import tiny

KINDS = {"sd": "StableDiffusionPipeline", "sd2": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline",
         "inpaint9": "StableDiffusionInpaintPipeline",
         "sdxl_inpaint9": "StableDiffusionXLInpaintPipeline"}  # fmt: skip

TEXT_NORM = "cond_stage_model.transformer.text_model.final_layer_norm."


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    return write_single("sd", tmp_path_factory.mktemp("single"))


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_tensor_comes_over(kind: str, tmp_path: Path) -> None:
    file, folder, expected = write_single(kind, tmp_path)
    found = from_single_file(file, config=folder)
    assert type(found).__name__ == KINDS[kind]
    networks = {name: part for name, part in expected.components.items() if isinstance(part, nn.Module)}
    assert len(networks) >= 3
    for name, network in networks.items():
        state = getattr(found, name).state_dict()
        assert state.keys() == network.state_dict().keys()
        assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())


def test_a_pickled_file_in_half_precision_is_read(written: Any, tmp_path: Path) -> None:
    _, folder, pipe = written
    state = {key: tensor.half() for key, tensor in original_state(pipe).items()}
    torch.save({"state_dict": state, "global_step": 7}, tmp_path / "old.ckpt")
    found = from_single_file(tmp_path / "old.ckpt", config=folder, dtype=torch.float16)
    assert found.unet.dtype == found.vae.dtype == torch.float16


@pytest.mark.parametrize("marks", [("v_pred",), ("v_pred", "ztsnr")])
def test_a_file_says_itself_that_it_predicts_the_velocity(written: Any, marks: tuple[str, ...], tmp_path: Path) -> None:
    file, folder, _ = written
    save_file(load_file(file) | {mark: torch.zeros(1) for mark in marks}, tmp_path / "v.safetensors")
    config = from_single_file(tmp_path / "v.safetensors", config=folder).scheduler.config
    assert config.prediction_type == "v_prediction"
    assert config.rescale_betas_zero_snr == ("ztsnr" in marks)


def without(state: dict[str, Any], beginning: str) -> dict[str, Any]:
    return {key: tensor for key, tensor in state.items() if not key.startswith(beginning)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: without(state, "model.diffusion_model.out.2.bias"), "lacks tensors of a network"),
        (lambda state: without(state, TEXT_NORM), "lacks 2 tensors of the text_encoder"),
        (lambda state: without(state, "first_stage_model."), "without its autoencoder"),
        (lambda state: without(state, "cond_stage_model."), "no text encoder that is known"),
        (lambda _: {"lora_unet_mid.lora_down.weight": torch.zeros(1)}, "is a LoRA; give it as a LoRA"),
        (lambda _: {"control_model.input_blocks.0.0.weight": torch.zeros(1)}, "is a ControlNet"),
        (lambda _: {"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, "is a Flux model"),
        (lambda _: {"decoder.up.0.block.0.norm1.weight": torch.zeros(1)}, "is an autoencoder alone"),
        (lambda _: {"anything": torch.zeros(1)}, "is no base model; expected a whole Stable Diffusion 1, 2 or XL"),
        (lambda state: state | {"model.diffusion_model.out.2.bias": torch.full((4,), torch.nan)}, "NaN|finite"),
    ],
)  # fmt: skip
def test_what_lacks_or_is_another_file_is_said(written: Any, change: Any, message: str, tmp_path: Path) -> None:
    file, folder, _ = written
    save_file(change(load_file(file)), tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match=message):
        from_single_file(tmp_path / "bad.safetensors", config=folder)


def test_the_configuration_of_another_family_does_not_fit(written: Any, tmp_path: Path) -> None:
    tiny("sdxl").pipe.save_pretrained(tmp_path / "xl")
    with pytest.raises(ValueError, match="a Stable Diffusion 1 file, does not fit the configuration of"):
        from_single_file(written[0], config=tmp_path / "xl")


def test_without_network_the_error_names_config(written: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="on the hub as stable-diffusion-v1-5/.*gave no answer.*Give --config FOLDER"):
        from_single_file(written[0])


@pytest.mark.parametrize("config", ["./nothing", "nothing", ""])
def test_a_configuration_that_is_not_there_is_said(written: Any, config: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--config"):
        from_single_file(written[0], config=config or tmp_path)


def test_what_a_single_file_is(written: Any) -> None:
    file, folder, _ = written
    assert is_single_file(str(file))
    assert is_single_file("not-there.safetensors")
    assert not is_single_file(str(folder))
    assert not is_single_file("owner/name")
    with pytest.raises(FileNotFoundError, match="there is no file not-there.safetensors"):
        from_single_file("not-there.safetensors")
