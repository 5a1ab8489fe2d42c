"""A tiny pipeline's weights as their publisher would release them: file names, key names and shapes of tables.

The published names come from the key lists at full size, read backwards through the system's own key maps; so what is
written here and read back has gone through every rename, cut and squeeze twice.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from referencenet.checkpoints.published import PublishedFile, PublishedSet

MANIFESTS = Path(__file__).parent / "manifests"


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
    states: dict[str, dict[str, Tensor]] = {}
    for file in published.files:
        own = {
            key: tensor.clone()
            for key, tensor in getattr(pipe, file.component).state_dict().items()
            if re.fullmatch(file.share, key)
        }
        states.setdefault(file.path, {}).update(_under_published_names(file, own))
    return states


def write(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict as its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(dict(state), path)


def _under_published_names(file: PublishedFile, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A component's part of a file, all of whose keys get a published name."""
    if file.manifest is None:
        return dict(own)
    with gzip.open(MANIFESTS / f"{file.manifest}.json.gz", "rt", encoding="utf-8") as listed:
        shapes: dict[str, list[int]] = json.load(listed)["keys"]
    found: dict[str, Tensor] = {}
    written: set[str] = set()
    for key, shape in shapes.items():
        if file.keymap.reason_ignored(key) is not None:
            continue
        names = list(file.keymap.convert({key: torch.empty(shape, device="meta")}))
        if not all(name in own for name in names):
            continue
        written |= set(names)
        axis = next((s.dim for s in file.keymap.splits if re.fullmatch(s.pattern, file.keymap.name(key))), 0)
        tensor = torch.cat([own[name] for name in names], dim=axis) if len(names) > 1 else own[names[0]]
        if len(shape) == tensor.ndim + 1 and shape[0] == 1:
            tensor = tensor[None]
        found[key] = tensor.reshape((*tensor.shape, *[1] * (len(shape) - tensor.ndim))).clone()
    missing = set(own) - written
    if missing:
        raise AssertionError(f"{file.path}: no published name for {sorted(missing)[:5]} and {len(missing)} in all")
    return found
