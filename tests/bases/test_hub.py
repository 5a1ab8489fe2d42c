"""Models of the hub, as they lie in its local cache: read as strictly as folders are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from referencenet import load_base
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.methods.catvton import CatVTONPipeline
from tiny import tiny, tiny_pipeline

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
COMMIT = "0" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, on a machine without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def snapshot(cache: Path, name: str) -> Path:
    """Where the cache has a model."""
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    return place / "snapshots" / COMMIT


def change(file: Path, how: str) -> str:
    """Take a tensor away, or make one of no numbers; its name."""
    state = load_file(file)
    name = sorted(state)[3]
    if how == "lacking":
        del state[name]
    else:
        state[name] = torch.full_like(state[name], torch.nan)
    save_file(state, file, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize(("how", "message"), [("lacking", "1 tensors missing"), ("nan", "NaN or infinite weights")])
def test_a_base_is_whole_and_finite(how: str, message: str, cache: Path) -> None:
    folder = snapshot(cache, "owner/base")
    pipe = tiny("sd").pipe
    pipe.save_pretrained(folder)
    found = load_base("owner/base", device="cpu")
    assert all(map(torch.equal, found.unet.state_dict().values(), pipe.unet.state_dict().values()))
    change(folder / WEIGHTS, how)
    with pytest.raises(CheckpointError, match=message):
        load_base("owner/base", device="cpu")


@pytest.mark.filterwarnings("ignore:.*local_dir_use_symlinks:UserWarning")  # diffusers still names it
def test_a_controlnet_is_whole(cache: Path) -> None:
    snapshot(cache, "owner/base").parent.mkdir(parents=True)
    tiny("sd").pipe.save_pretrained(cache / "models--owner--base" / "snapshots" / COMMIT)
    folder = snapshot(cache, "owner/net")
    tiny("controlnet").pipe.controlnet.save_pretrained(folder)
    load_base("owner/base", device="cpu", controlnets={"pose": "owner/net"})
    change(folder / "diffusion_pytorch_model.safetensors", "lacking")
    with pytest.raises(CheckpointError, match="1 tensors missing"):
        load_base("owner/base", device="cpu", controlnets={"pose": "owner/net"})


def test_a_system_is_whole(cache: Path, tmp_path: Path) -> None:
    folder = snapshot(cache, "owner/system")
    tiny_pipeline(CatVTONPipeline).save_pretrained(tmp_path / "saved")
    shutil.copytree(tmp_path / "saved", folder)
    CatVTONPipeline.from_pretrained("owner/system", trust_remote_code=True)
    change(folder / WEIGHTS, "lacking")
    with pytest.raises(CheckpointError, match="1 tensors missing"):
        CatVTONPipeline.from_pretrained("owner/system", trust_remote_code=True)


def test_what_the_cache_has_not_is_told(cache: Path) -> None:  # noqa: ARG001 - an empty one
    with pytest.raises(ValueError, match="owner/none is not in the local cache, and the hub gave no answer"):
        load_base("owner/none", device="cpu")
