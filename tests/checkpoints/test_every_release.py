"""Every system's released files: read whole and strictly, converted, and whatever people do to files told in a line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import referencenet
from referencenet.checkpoints.flashface import CKPT, unet_config
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.published import PublishedSet
from referencenet.cli.convert import run_convert
from referencenet.methods.systems import pipelines
from referencenet.methods.tiny import filled
from released import released_states, write, write_released
from systems import SYSTEMS, System, in_time
from tiny import CONTEXT

RELEASED = [system for system in SYSTEMS if system.name != "emo"]
"""EMO has no release."""

every_release = pytest.mark.parametrize("system", [in_time(system) for system in RELEASED])


def published_of(system: System) -> PublishedSet:
    """The set as it is written; FlashFace's without Stable Diffusion's own parts, which its base brings as well."""
    published: PublishedSet = system.kind.published
    if system.name != "flashface":
        return published
    return replace(published, files=tuple(file for file in published.files if file.path == CKPT))


SHARED = ("mid_block.", "time_embedding.", "conv_norm_out.", "conv_out.")
"""Parts that FlashFace's two networks share: its file has them once."""


def tiny_of(system: System) -> Any:
    """A tiny pipeline; FlashFace's networks have the four levels that its file's names count."""
    pipe = system.make()
    if system.name == "flashface":
        config = {"unet": unet_config(dim=32, dim_mult=(1, 1, 1, 1), context_dim=CONTEXT)}
        with torch.random.fork_rng(devices=[]):
            unet, writer = (published_of(system).build[name](config) for name in ("unet", "reference_unet"))
        filled(unet, seed=1)
        shared = {key: tensor for key, tensor in unet.state_dict().items() if key.startswith(SHARED)}
        filled(writer, seed=2).load_state_dict(writer.state_dict() | {
            key: tensor for key, tensor in shared.items() if key in writer.state_dict()
        })  # fmt: skip
        pipe.register_modules(unet=unet, reference_unet=writer)
    return pipe


def read(system: System, folder: Path, files: Any = None) -> Any:
    return system.kind.from_published(folder if files is None else files, base=folder / "base")


def assert_same(pipe: Any, expected: Any) -> None:
    """All networks hold the same numbers."""
    for name, part in expected.components.items():
        if isinstance(part, torch.nn.Module):
            state, read_back = part.state_dict(), getattr(pipe, name).state_dict()
            assert state.keys() == read_back.keys(), name
            assert all(torch.equal(read_back[key], tensor) for key, tensor in state.items()), name


@every_release
def test_released_files_and_their_conversion_give_the_networks_back(system: System, tmp_path: Path) -> None:
    pipe = tiny_of(system)
    folder = write_released(pipe, published_of(system), tmp_path / "released")
    assert_same(read(system, folder), pipe)
    name = next(name for name, kind in pipelines().items() if kind is system.kind)
    out = run_convert(name, [folder], tmp_path / "out", base=folder / "base")
    converted = referencenet.load(out)
    assert_same(converted, pipe)
    converted.set_progress_bar_config(disable=True)
    assert bool(system.call(converted, num_inference_steps=1, output_type="pt").isfinite().all())


# --- what people do to files, with StableGarment's and MagicPose's: key names of diffusers, and of latent diffusion ---

LAYOUTS = [system for system in SYSTEMS if system.name in ("stable_garment.text2img", "magicpose.stage1")]
every_layout = pytest.mark.parametrize("system", LAYOUTS, ids=lambda system: system.name)


def first_file(system: System) -> tuple[str, dict[str, torch.Tensor]]:
    """A file of a set: its path and what it holds."""
    return next(iter(released_states(tiny_of(system), published_of(system)).items()))


def under(prefix: str) -> Callable[[dict[str, torch.Tensor]], dict[str, Any]]:
    return lambda state: {f"{prefix}{key}": tensor for key, tensor in state.items()}


UNAMBIGUOUS: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, Any]]] = {
    "of data parallelism": under("module."),
    "of a compiled network": under("_orig_mod."),
    "of both": under("module._orig_mod."),
}


@every_layout
@pytest.mark.parametrize("kind", UNAMBIGUOUS)
def test_prefixes_that_all_keys_have_are_dropped(system: System, kind: str, tmp_path: Path) -> None:
    pipe = tiny_of(system)
    folder = write_released(pipe, published_of(system), tmp_path)
    path, state = first_file(system)
    write(UNAMBIGUOUS[kind](state), folder / path)
    assert_same(read(system, folder), pipe)


@every_layout
def test_a_moving_average_alone_is_read_and_beside_the_weights_it_is_not(system: System, tmp_path: Path) -> None:
    pipe = tiny_of(system)
    folder = write_released(pipe, published_of(system), tmp_path)
    path, state = first_file(system)
    other = {key: tensor + 1 for key, tensor in state.items()}
    named = (folder / path).with_suffix(".pth")
    (folder / path).unlink()
    torch.save({"ema_state_dict": state}, named)
    assert_same(read(system, folder), pipe)
    torch.save({"ema_state_dict": other, "state_dict": state}, named)
    assert_same(read(system, folder), pipe)


@every_layout
@pytest.mark.parametrize("added", [".fp16", "-12345", "_step_300"])
def test_a_precision_or_step_in_a_files_name_is_understood(system: System, added: str, tmp_path: Path) -> None:
    pipe = tiny_of(system)
    folder = write_released(pipe, published_of(system), tmp_path)
    path = folder / first_file(system)[0]
    stem = path.stem.split("-")[0]
    path.rename(path.with_name(f"{stem}{added}{path.suffix}"))
    assert_same(read(system, folder), pipe)
    other = path.with_name(f"{stem}-777{path.suffix}")
    other.write_bytes(path.with_name(f"{stem}{added}{path.suffix}").read_bytes())
    with pytest.raises(CheckpointError, match="could be .*777"):
        read(system, folder)


@every_layout
def test_the_newest_snapshot_of_a_cache_is_read(system: System, tmp_path: Path) -> None:
    pipe = tiny_of(system)
    for age, name in ((100, "newer"), (200, "older")):
        folder = write_released(pipe, published_of(system), tmp_path / "models--owner--name" / "snapshots" / name)
        os.utime(folder, (time.time() - age,) * 2)
    write({"a": torch.zeros(1)}, folder / first_file(system)[0])  # the older one's is another network's
    os.utime(folder, (time.time() - 200,) * 2)
    (tmp_path / "base").symlink_to(folder / "base")
    read_back = system.kind.from_published(tmp_path / "models--owner--name", base=tmp_path / "base")
    assert_same(read_back, pipe)


@every_layout
def test_shards_are_read_together_and_a_missing_one_is_told(system: System, tmp_path: Path) -> None:
    pipe = tiny_of(system)
    folder = write_released(pipe, published_of(system), tmp_path)
    path, state = first_file(system)
    whole = folder / path
    whole.unlink()
    shards = [whole.with_name(f"{whole.stem.split('-')[0]}-0000{i}-of-00002{whole.suffix}") for i in (1, 2)]
    keys = sorted(state)
    for shard, part in zip(shards, (keys[::2], keys[1::2]), strict=True):
        write({key: state[key] for key in part}, shard)
    assert_same(read(system, folder), pipe)
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match="00002-of-00002"):
        read(system, folder)


def without_one(state: dict[str, torch.Tensor], path: Path) -> None:
    write(dict(list(state.items())[:-1]), path)


def one_not_finite(state: dict[str, torch.Tensor], path: Path) -> None:
    key = list(state)[-1]
    write(state | {key: torch.full_like(state[key], float("nan"))}, path)


def one_of_another_shape(state: dict[str, torch.Tensor], path: Path) -> None:
    key = list(state)[-1]
    write(state | {key: torch.zeros(3, 1, 2)}, path)


def one_more(state: dict[str, torch.Tensor], path: Path) -> None:
    write(state | {"extra.weight": torch.zeros(2)}, path)


FAULTS: dict[str, tuple[Callable[[dict[str, torch.Tensor], Path], Any], str]] = {
    "a tensor is missing": (without_one, "lacks|missing|unset|has no"),
    "a tensor is not finite": (one_not_finite, "NaN or infinite"),
    "a tensor is of another shape": (one_of_another_shape, "another shape|does not fit"),
    "a tensor too many": (one_more, r"extra\.weight"),
    "cut short": (
        lambda _, path: path.write_bytes(path.read_bytes()[:100]),
        "cut short|is not a complete safetensors file",
    ),
    "empty": (lambda _, path: path.write_bytes(b""), "is empty"),
    "a pointer of Git LFS": (
        lambda _, path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"),
        "Git LFS pointer",
    ),
    "a web page": (lambda _, path: path.write_text("<!DOCTYPE html><html>no</html>"), "web page"),
    "a LoRA": (
        lambda _, path: write({"unet.mid_block.attn1.to_q.lora_A.weight": torch.zeros(2, 2)}, path),
        "it is a LoRA",
    ),
    "another network": (lambda _, path: write({"vision_model.a.weight": torch.zeros(2)}, path), "CLIP vision model"),
    "away": (lambda _, path: path.unlink(), "not found"),
}


EVERYWHERE = ("a tensor is missing", "a tensor is not finite", "away")
"""Faults that are tried on every system."""

CASES = [
    pytest.param(system, fault, id=f"{system.name}-{fault}") if system in LAYOUTS else in_time(system, fault)
    for system in RELEASED
    for fault in FAULTS
    if system in LAYOUTS or fault in EVERYWHERE
]


@pytest.mark.parametrize(("system", "fault"), CASES)
def test_faulty_files_are_told_by_name(system: System, fault: str, tmp_path: Path) -> None:
    folder = write_released(tiny_of(system), published_of(system), tmp_path)
    path, state = first_file(system)
    damage, message = FAULTS[fault]
    damage(state, folder / path)
    with pytest.raises((CheckpointError, FileNotFoundError), match=message) as told:
        read(system, folder)
    assert Path(path).stem in str(told.value) or Path(path).name in str(told.value)


@every_release
def test_a_part_in_its_librarys_layout_with_a_hole_is_told(system: System, tmp_path: Path) -> None:
    """Loaders of diffusers and transformers put random numbers where a file lacks a tensor."""
    folder = write_released(tiny_of(system), published_of(system), tmp_path)
    networks = {
        name: folder / "base" / name if part.in_base else folder / (part.folder or name)
        for name, part in published_of(system).further.items()
        if issubclass(part.kind, torch.nn.Module)
    }
    for name, place in networks.items():
        (path,) = place.glob("*.safetensors")
        whole = load_file(path)
        write(dict(list(whole.items())[:-1]), path)
        with pytest.raises(CheckpointError, match=f"{place.name}.* does not fit .*1 tensors missing"):
            read(system, folder)
        write(whole, path)
        assert getattr(read(system, folder), name) is not None
