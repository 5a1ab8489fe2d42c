"""A tiny pipeline's weights as their publisher would release them: file names, key names and shapes of tables.

The published names come from the key lists at full size, along which `checkpoints/written.py` goes back; so what is
written here and read back has gone through every rename, cut and squeeze twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from referencenet.checkpoints.published import PublishedSet
from referencenet.checkpoints.written import published_states


def write_released(pipe: Any, published: PublishedSet, folder: Path) -> Path:
    """Write a pipeline as its released files, with a folder `base` for what the release leaves out.

    Args:
        pipe: Tiny.
        published: The set.
        folder: Where to; with the base model's parts in its `base`.
    """
    for path, state in released_states(pipe, published).items():
        write(state, folder / path)
        component = getattr(pipe, next(file.component for file in published.files if file.path == path))
        if "/" in path and hasattr(component, "save_config"):
            component.save_config((folder / path).parent)
        elif "/" in path:
            component.config.save_pretrained((folder / path).parent)
    for name, part in published.further.items():
        if part.default is None and name in pipe.components:
            place = folder / "base" / name if part.in_base else folder / (part.folder or name)
            getattr(pipe, name).save_pretrained(place)
    for name in ("vae", "text_encoder", "tokenizer", "tokenizer_2", "scheduler"):
        if name in pipe.components and not (folder / "base" / name).exists():
            getattr(pipe, name).save_pretrained(folder / "base" / name)
    unet = published.tiny_config.get("unet", published.tiny_config)
    if any(file.base is not None for file in published.files):
        base, own = UNet2DConditionModel(**unet), pipe.unet.state_dict()
        base.load_state_dict({key: own[key] for key in base.state_dict() if key in own}, strict=False)
        base.save_pretrained(folder / "base" / "unet")
    (folder / "base" / "unet").mkdir(parents=True, exist_ok=True)
    (folder / "base" / "unet" / "config.json").write_text(
        json.dumps({"_class_name": "UNet2DConditionModel", **unet}), encoding="utf-8"
    )
    return folder


def released_states(pipe: Any, published: PublishedSet) -> dict[str, dict[str, Tensor]]:
    """Path of a file to its state dict under published names."""
    states = published_states(pipe.components, published)
    return {path: {key: tensor.clone() for key, tensor in state.items()} for path, state in states.items()}


def write(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict as its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(dict(state), path)
