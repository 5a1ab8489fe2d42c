"""One call from what people have to a pipeline that draws: the built-in model, a folder, the hub, or a single file.

Commands, nodes and the web page load through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    ControlNetModel,
    DiffusionPipeline,
)

from referencenet.bases.devices import check_offload, choose_device, choose_dtype, place
from referencenet.bases.loras import add_loras
from referencenet.bases.names import BUILTIN, check_base, check_model, is_single_file, parse_lora
from referencenet.bases.schedulers import find_scheduler, with_scheduler
from referencenet.bases.single_file import from_single_file
from referencenet.builtin.load import load
from referencenet.checkpoints.files import first_line
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.library import check_networks, local_folder, read_library_part, read_networks
from referencenet.methods.referencenet import ReferenceNetPipeline

Task = Literal["text", "image", "inpaint"]
TASKS: Mapping[Task, Any] = {
    "text": AutoPipelineForText2Image,
    "image": AutoPipelineForImage2Image,
    "inpaint": AutoPipelineForInpainting,
}


def load_base(
    model: str | Path = BUILTIN,
    *,
    task: Task = "text",
    config: str | Path | None = None,
    controlnets: Mapping[str, str] | None = None,
    loras: Sequence[str] = (),
    scheduler: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    offload: Literal["model", "group", "sequential"] | None = None,
    vae_tiling: bool = False,
    compiled: bool = False,
) -> DiffusionPipeline:
    """Load a base model, whatever it lies in, for `reference` and `share`.

    Args:
        model: `builtin`; a folder that holds `model_index.json`; a name on the hub, `owner/name`; or a single file
            (`.safetensors`, `.ckpt`) of Stable Diffusion 1, 2 or XL in the original layout.
        task: `text`: pictures of words; `image`: of a picture and words; `inpaint`: of a picture, a mask and words.
        config: For a single file: a folder or hub name of the same family, whose configurations and tokenizer are
            taken. None: the family's own on the hub.
        controlnets: By kind, the folders or hub names of ControlNets beside the UNet, in this order.
        loras: FILE or FILE:SCALE each.
        scheduler: A class of diffusers or a short name, as in `euler a` and `dpm++ 2m karras`. None: the model's own.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: Of all weights; `auto` is half precision on CUDA.
        offload: What waits in the CPU's memory: whole models, groups of layers, or each layer.
        vae_tiling: Encode and decode tile by tile: less memory, other pixels.
        compiled: Compile the UNet's repeated blocks.

    Returns:
        A pipeline of diffusers, ready to draw.

    Raises:
        FileNotFoundError: If a file or folder is not there.
        CheckpointError: If a file is damaged, or does not fit.
        ValueError: If an option has a value that it cannot have, or the hub gave no answer.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; expected one of {', '.join(TASKS)}.")
    target = choose_device(device) if isinstance(device, str) else device
    kind = choose_dtype(dtype, target) if isinstance(dtype, str) else dtype
    check_offload(offload, target, compiled=compiled)
    check_base(str(model), None if config is None else str(config))
    for lora in loras:
        parse_lora(lora)
    if scheduler is not None:
        find_scheduler(scheduler)
    pipe = read_pipeline(str(model), config=config, dtype=kind)
    nets = [
        _from_pretrained(ControlNetModel, f"the ControlNet {name}", path, "config.json", kind)
        for name, path in (controlnets or {}).items()
    ]
    pipe = for_task(pipe, task, nets)
    add_loras(pipe, loras)
    if scheduler is not None:
        with_scheduler(pipe, scheduler)
    return place(pipe, target, offload=offload, vae_tiling=vae_tiling, compiled=compiled)


def read_pipeline(model: str, *, config: str | Path | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """A pipeline as it was saved, on the CPU.

    Args:
        model: As for `load_base`.
        config: As for `load_base`.
        dtype: Of all weights.
    """
    if model == BUILTIN:
        return load("base", dtype=dtype)
    if is_single_file(model):
        return from_single_file(model, config=config, dtype=dtype)
    return _from_pretrained(DiffusionPipeline, "--model", model, "model_index.json", dtype)


def for_task(pipe: Any, task: Task, controlnets: Sequence[Any] = ()) -> Any:
    """The pipeline of the same parts that does a task.

    Args:
        pipe: Of diffusers.
        task: As for `load_base`.
        controlnets: Beside the UNet.

    Raises:
        ValueError: If its UNet is made for another task, or there is no such pipeline.
    """
    channels = int(pipe.unet.config.in_channels) if hasattr(pipe, "unet") else 4
    if channels == 9 and task != "inpaint":
        raise ValueError(
            "this is an inpainting model: its UNet sees a picture and a mask beside the latents; give both, --image "
            "and --inpaint-mask."
        )
    if task == "text" and not controlnets:
        return pipe
    beside: dict[str, Any] = {}
    if controlnets:
        beside["controlnet"] = controlnets[0] if len(controlnets) == 1 else list(controlnets)
    try:
        return TASKS[task].from_pipe(pipe, **beside)
    except Exception as error:  # of diffusers' table of pipelines
        raise ValueError(f"a {type(pipe).__name__} cannot do the task {task!r}: {first_line(error)}") from error


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
    parts: dict[str, Any] = {}
    try:
        place = str(path) if path.is_dir() else name
        if issubclass(kind, torch.nn.Module):
            return read_library_part(kind, place, dtype=dtype)
        if kind is DiffusionPipeline:  # ours read strictly by themselves
            place = str(local_folder(kind, place, {}))
            parts = read_networks(Path(place), {"dtype": dtype})
        found = kind.from_pretrained(place, dtype=dtype, **parts)
    except CheckpointError:
        raise
    except Exception as error:  # loaders of foreign files raise whatever their parsers do
        if path.is_dir():
            raise ValueError(f"{option} {name} is damaged or incomplete: {first_line(error)}") from error
        raise ValueError(
            f"{option} {name} is not in the local cache, and the hub gave no answer; check the name and the network, "
            "or download it elsewhere and give its folder (refnet --debug shows what the hub said)."
        ) from error
    rest = {part: network for part, network in getattr(found, "components", {"it": found}).items() if part not in parts}
    check_networks(rest, name)
    return found
