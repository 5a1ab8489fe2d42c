"""IDM-VTON's released files at tiny size, names and layout as published: what is read, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from golden import GOLDENS
from referencenet import IDMVTONPipeline
from referencenet.checkpoints import idm_vton as idm_vton_files
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.parity.cases import Case, load_case
from referencenet.parity.systems.idm_vton import TRAINED_ELSEWHERE
from tiny import tiny_pipeline


@pytest.fixture
def pipe() -> IDMVTONPipeline:
    return tiny_pipeline("idm_vton")


def published_folder(folder: Path, case: Case, pipe: IDMVTONPipeline) -> None:
    """Write the released files of a tiny model, and the configurations beside them."""
    parts: dict[str, Any] = {
        "image_encoder": pipe.image_encoder,
        "text_encoder": pipe.text_encoder,
        "text_encoder_2": pipe.text_encoder_2,
    }
    tryon, garment = (case.components[name]["config"] for name in ("tryon_net", "garment_net"))
    configs = {
        "unet": {key: value for key, value in tryon.items() if key not in TRAINED_ELSEWHERE},
        "unet_encoder": garment,
        "vae": dict(pipe.vae.config),
        **{name: part.config.to_dict() for name, part in parts.items()},
    }
    for name, config in configs.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config))
    torch.save(case.published_state("tryon_net"), folder / "unet/diffusion_pytorch_model.bin")
    save_file(case.published_state("garment_net"), folder / "unet_encoder/diffusion_pytorch_model.safetensors")
    save_file(pipe.vae.state_dict(), folder / "vae/diffusion_pytorch_model.safetensors")
    for name, part in parts.items():
        state = part.state_dict()
        if name == "text_encoder":
            state = {f"text_model.{key}": value for key, value in state.items()}
        save_file(state, folder / name / "model.safetensors")
    for name in ("tokenizer", "tokenizer_2"):
        getattr(pipe, name).save_pretrained(folder / name)


@pytest.fixture
def released(tmp_path: Path, pipe: IDMVTONPipeline, monkeypatch: pytest.MonkeyPatch) -> Path:
    case = load_case(GOLDENS / "idm_vton-tryonnet")
    published_folder(tmp_path, case, pipe)
    width = case.components["tryon_net"]["config"]["resampler"]["dim_head"]  # which weights do not tell
    monkeypatch.setattr(idm_vton_files, "RESAMPLER_HEAD", width)
    return tmp_path


def test_released_files_become_a_pipeline(released: Path, pipe: IDMVTONPipeline) -> None:
    ours = IDMVTONPipeline.from_published(released)
    case = load_case(GOLDENS / "idm_vton-tryonnet").published_state("tryon_net")
    assert torch.equal(ours.unet.conv_in.weight, case["conv_in.weight"])
    layer = ours.image_projection.layers[1].attn
    joined = torch.cat([layer.to_k.weight, layer.to_v.weight])
    assert torch.equal(joined, case["encoder_hid_proj.layers.1.0.to_kv.weight"])
    for name in ("image_encoder", "text_encoder", "text_encoder_2", "vae"):
        theirs = getattr(pipe, name).state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in getattr(ours, name).state_dict().items())
    assert ours.scheduler.config["rescale_betas_zero_snr"]


def test_a_folder_s_own_scheduler_is_taken(released: Path, pipe: IDMVTONPipeline) -> None:
    type(pipe.scheduler)(beta_start=0.001).save_pretrained(released / "scheduler")
    assert IDMVTONPipeline.from_published(released).scheduler.config["beta_start"] == 0.001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("conv_in.bias"), "lacks 1 of its keys: conv_in.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 keys that .* does not have: extra"),
        (lambda state: state.update({"conv_in.bias": torch.zeros(3)}), r"conv_in.bias is \(3,\), expected \(32,\)"),
        (lambda state: state["conv_in.bias"].fill_(float("nan")), "NaN or infinite weights in conv_in.bias"),
        (lambda state: state.pop("encoder_hid_proj.latents"), "it has no 'encoder_hid_proj.latents'"),
    ],
    ids=["missing", "extra", "misshapen", "nan", "resampler"],
)
def test_faulty_files_are_refused(released: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    folder = released
    path = folder / "unet/diffusion_pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        IDMVTONPipeline.from_published(folder)


def test_missing_files_say_where_to_get_them(released: Path) -> None:
    folder = released
    (folder / "unet_encoder/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"needs unet_encoder/.*huggingface.co/yisol/IDM-VTON.*CC BY-NC-SA"):
        IDMVTONPipeline.from_published(folder)
