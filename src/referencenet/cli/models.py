"""From what `--model` and `--controlnet` say to a pipeline that is ready to draw."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoPipelineForText2Image, ControlNetModel, DiffusionPipeline

from referencenet.builtin.load import load
from referencenet.checkpoints.files import first_line
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.library import check_networks, read_library_part, read_networks
from referencenet.cli.model_names import BUILTIN, check_model
from referencenet.methods.referencenet import ReferenceNetPipeline

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1` or `mps` into a device that is there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used ({reason}); use auto or cpu.") from error


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn `auto`, `float32`, `float16` or `bfloat16` into a type; auto is half precision on CUDA only."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return DTYPES[name]


def check_offload(offload: str | None, device: torch.device) -> None:
    """See that weights have somewhere to go to.

    Raises:
        ValueError: If the device that computes is the CPU itself.
    """
    if offload is not None and device.type == "cpu":
        raise ValueError(
            f"--offload {offload} keeps weights in the CPU's memory until an accelerator needs them, but the device is "
            "the CPU; leave it away, or give --device."
        )


def place(pipe: Any, device: torch.device, *, offload: str | None = None, vae_tiling: bool = False) -> Any:
    """Let a pipeline compute somewhere.

    Args:
        pipe: A pipeline on the CPU.
        device: Where it computes.
        offload: `model`: one network at a time is there; `sequential`: one layer; `group`: the same by diffusers' own
            hooks, with less to wait for; None: everything.
        vae_tiling: Whether the autoencoder works tile by tile.

    Returns:
        The pipeline.
    """
    if vae_tiling:
        pipe.vae.enable_tiling()
    if offload is None:
        return pipe.to(device)
    if offload == "group":
        pipe.enable_group_offload(device, offload_type="leaf_level")
    elif offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_sequential_cpu_offload(device=device)
    return pipe


def load_pipeline(model: str, *, controlnets: Mapping[str, str], dtype: torch.dtype) -> DiffusionPipeline:
    """Load a diffusers pipeline.

    Args:
        model: `builtin`, a folder that holds model_index.json, or an identifier on the hub.
        controlnets: By kind, the folders or identifiers of ControlNets to put beside the UNet, in this order.
        dtype: Of all weights.

    Returns:
        A text-to-image pipeline; with ControlNets the one of its family that takes them.

    Raises:
        ValueError: There is no such model, or it cannot be downloaded.
    """
    if model == BUILTIN:
        pipe: Any = load("base", dtype=dtype)
    else:
        pipe = _from_pretrained(DiffusionPipeline, "--model", model, "model_index.json", dtype)
    if not controlnets:
        return pipe
    nets = [
        _from_pretrained(ControlNetModel, f"--controlnet {kind}", path, "config.json", dtype)
        for kind, path in controlnets.items()
    ]
    return AutoPipelineForText2Image.from_pipe(pipe, controlnet=nets[0] if len(nets) == 1 else nets)


def load_referencenet(model: str, *, dtype: torch.dtype) -> ReferenceNetPipeline:
    """Load a trained pose ReferenceNet: the built-in one, or one that `save_pretrained` wrote.

    Raises:
        ValueError: There is no such model, or it cannot be downloaded.
    """
    if model == BUILTIN:
        return load("referencenet", dtype=dtype)
    return _from_pretrained(ReferenceNetPipeline, "--model", model, "model_index.json", dtype)


def _from_pretrained(kind: Any, option: str, name: str, index: str, dtype: torch.dtype) -> Any:
    """Load one thing, or say in one sentence why not."""
    path = check_model(option, name, index)
    where = "is damaged or incomplete" if path.is_dir() else "is not in the local cache, and the hub gave no answer"
    try:
        if path.is_dir() and issubclass(kind, torch.nn.Module):
            return read_library_part(kind, path, dtype=dtype)
        plain = path.is_dir() and kind is DiffusionPipeline
        parts = read_networks(path, {"dtype": dtype}) if plain else {}
        found = kind.from_pretrained(str(path) if path.is_dir() else name, dtype=dtype, **parts)
    except CheckpointError:
        raise
    except Exception as error:  # loaders of foreign files raise whatever their parsers do
        raise ValueError(f"{option} {name} {where}: {first_line(error)}") from error
    rest = {part: network for part, network in getattr(found, "components", {"it": found}).items() if part not in parts}
    check_networks(rest, name)
    return found
