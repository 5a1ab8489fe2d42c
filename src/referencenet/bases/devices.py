"""Where a pipeline computes, in which type, and where its weights wait meanwhile."""

from __future__ import annotations

from typing import Any

import torch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1` or `mps` into a device that is there.

    Raises:
        ValueError: If it is not.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used ({reason}); use auto or cpu.") from error


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn `auto`, `float32`, `float16` or `bfloat16` into a type; auto is half precision on CUDA only.

    Raises:
        ValueError: If the name is another.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise ValueError(f"dtype is {name!r}; expected auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def check_offload(offload: str | None, device: torch.device, *, compiled: bool = False) -> None:
    """See that weights have somewhere to go to, and that compiled code does not lose them on the way.

    Raises:
        ValueError: If the device that computes is the CPU itself, or the UNet is to be compiled as well.
    """
    if offload is not None and compiled:
        raise ValueError(
            f"--offload {offload} moves weights between calls and --compile needs them where they are; give one of the "
            "two."
        )
    if offload is not None and device.type == "cpu":
        raise ValueError(
            f"--offload {offload} keeps weights in the CPU's memory until an accelerator needs them, but the device is "
            "the CPU; leave it out, or give --device."
        )


def place(
    pipe: Any, device: torch.device, *, offload: str | None = None, vae_tiling: bool = False, compiled: bool = False
) -> Any:
    """Let a pipeline compute somewhere.

    Args:
        pipe: A pipeline on the CPU.
        device: Where it computes.
        offload: `model`: one network at a time is there; `sequential`: one layer; `group`: the same by diffusers' own
            hooks, with less to wait for; None: everything.
        vae_tiling: Whether the autoencoder works tile by tile.
        compiled: Whether the UNet's repeated blocks are compiled: the first call takes a minute or more, later ones
            less than without.

    Returns:
        The pipeline.

    Raises:
        ValueError: If `offload` is of no known kind, or the UNet cannot be compiled.
    """
    if vae_tiling:
        pipe.vae.enable_tiling()
    if offload is None:
        pipe.to(device)
    elif offload == "group":
        pipe.enable_group_offload(device, offload_type="leaf_level")
    elif offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        raise ValueError(f"offload is {offload!r}; expected model, group or sequential.")
    if compiled:
        if not getattr(pipe.unet, "_repeated_blocks", None):
            raise ValueError(f"{type(pipe.unet).__name__} names no blocks to compile; leave compilation out.")
        pipe.unet.compile_repeated_blocks()
    return pipe
