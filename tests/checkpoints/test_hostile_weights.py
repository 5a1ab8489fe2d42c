"""Weights are present, finite and no larger than their file, whichever loader reads them; whatever else is told."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from referencenet.checkpoints.files import read_state
from referencenet.checkpoints.keymap import CheckpointError, KeyMap
from referencenet.checkpoints.load import load_published
from referencenet.methods.animate_anyone import AnimateAnyonePipeline
from tiny import tiny_pipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `save_pretrained` wrote."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_pipeline("animate_anyone").save_pretrained(folder)
    return folder


def changed(folder: Path, part: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the weights of a part of a saved folder."""
    file = next((folder / part).glob("*.safetensors"))
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={"format": "pt"})


def half(state: dict[str, torch.Tensor]) -> None:
    """Take every second tensor away."""
    for key in list(state)[::2]:
        del state[key]


def broken(state: dict[str, torch.Tensor]) -> None:
    """One number is none."""
    next(iter(state.values())).view(-1)[0] = float("nan")


@pytest.mark.parametrize("part", ["vae", "image_encoder", "unet", "pose_guider"])
@pytest.mark.parametrize(("change", "message"), [(broken, "NaN or infinite weights"), (half, "tensors missing")])
def test_a_saved_folder_is_read_strictly(part: str, change: Any, message: str, saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    changed(folder, part, change)
    with pytest.raises(CheckpointError, match=f"{part}.*{message}"):
        AnimateAnyonePipeline.from_pretrained(folder)


def test_a_saved_folder_is_read_in_the_type_that_is_asked_for(saved: Path) -> None:
    pipe = AnimateAnyonePipeline.from_pretrained(saved, dtype={"unet": torch.bfloat16, "default": torch.float16})
    assert (pipe.unet.dtype, pipe.vae.dtype, pipe.image_encoder.dtype) == (torch.bfloat16, *[torch.float16] * 2)
    vae = tiny_pipeline("animate_anyone").vae
    broken(vae.state_dict())
    with pytest.raises(CheckpointError, match="vae of .* holds NaN"):
        AnimateAnyonePipeline.from_pretrained(saved, vae=vae)
    assert AnimateAnyonePipeline.from_pretrained(saved, pose_guider=pipe.pose_guider).pose_guider is pipe.pose_guider


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"), (b"", "is empty"), (b"\0" * 99, "")],
)
def test_damaged_parts_are_told(name: str, content: bytes, message: str, saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    (folder / "image_encoder" / name).write_bytes(content)
    with pytest.raises((ValueError, OSError), match=f"image_encoder.*{message}") as caught:
        AnimateAnyonePipeline.from_pretrained(folder)
    assert "weights_only" not in str(caught.value)


def packed(path: Path) -> None:
    """A file of torch.save, packed anew with compression: a gigabyte of zeros would be a megabyte."""
    torch.save({"a": torch.zeros(100_000)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def looped(path: Path) -> None:
    """A dictionary that holds itself."""
    state: dict[str, Any] = {}
    state["state"] = state
    torch.save(state, path)


def cut(path: Path) -> None:
    """The beginning of a file."""
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:600])


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "expanded": (lambda path: torch.save({"a": torch.zeros(1).expand(2**33)}, path), "an expanded tensor"),
    "packed": (packed, "is packed .*could unpack to any size"),
    "looped": (looped, "nests dictionaries deeper"),
    "cut short": (cut, "cut short: download it again"),
    "text": (lambda path: path.write_text("weights are elsewhere"), "is not a weight file: it begins with b'weights"),
    "eight bits": (
        lambda path: torch.save({"a": torch.zeros(4).to(torch.float8_e4m3fn)}, path),
        "float8_e4m3fn numbers",
    ),
    "sparse": (lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path), "sparse"),
    "code": (lambda path: path.write_bytes(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."), "code could run.*os.system"),
    "strings": (lambda path: torch.save({"a": "b"}, path), "values that are not tensors"),
    "a number": (lambda path: torch.save(101, path), "expected a dictionary of tensors"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_hold_no_plain_weights_are_told(name: str, tmp_path: Path) -> None:
    make, message = FILES[name]
    make(tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        read_state(tmp_path / "model.pth")
    assert "model.pth" in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_whole_numbers_are_no_weights() -> None:
    layer = torch.nn.Linear(2, 2)
    state = {"weight": torch.ones(2, 2, dtype=torch.int8), "bias": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="weight is torch.int8, expected torch.float32"):
        load_published(layer, state, KeyMap(), source="model.pth")
