"""Networks as files with published names: the way back of every key map, along the key lists of the published files.

A key map is not turned around: each published key of a list is sent through it, and gets the tensors that it becomes.
So what is written here is what `from_published` reads, or nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.manifest import ENDING, KEY_LISTS, read_manifest
from referencenet.checkpoints.published import PublishedFile, PublishedSet
from referencenet.telling import some


def published_states(components: Mapping[str, Any], published: PublishedSet) -> dict[str, dict[str, Tensor]]:
    """State dicts under published names.

    Args:
        components: A pipeline's networks, by name.
        published: Which files.

    Returns:
        Published path to the file's state dict.

    Raises:
        CheckpointError: If a tensor has no published name: the networks are of another shape than the released ones.
    """
    states: dict[str, dict[str, Tensor]] = {}
    for file in published.files:
        state = components[file.component].state_dict()
        own = {key: tensor for key, tensor in state.items() if re.fullmatch(file.share, key)}
        states.setdefault(file.path, {}).update(_under_published_names(file, own))
    return states


def _under_published_names(file: PublishedFile, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A component's part of a file; without a key list the names are ours."""
    if file.manifest is None:
        return dict(own)
    found: dict[str, Tensor] = {}
    written: set[str] = set()
    for key, listed in read_manifest(KEY_LISTS / f"{file.manifest}{ENDING}").keys.items():
        if file.keymap.reason_ignored(key) is not None:
            continue
        names = list(file.keymap.convert({key: listed}))
        if not all(name in own for name in names):  # of a narrower network than the released one
            continue
        written |= set(names)
        axis = next((s.dim for s in file.keymap.splits if re.fullmatch(s.pattern, file.keymap.name(key))), 0)
        tensor = torch.cat([own[name] for name in names], dim=axis) if len(names) > 1 else own[names[0]]
        if listed.ndim == tensor.ndim + 1 and listed.shape[0] == 1:
            tensor = tensor[None]
        found[key] = tensor.reshape((*tensor.shape, *[1] * (listed.ndim - tensor.ndim)))
    missing = set(own) - written
    if missing:
        raise CheckpointError(
            f"{len(missing)} tensors of {file.component} have no published name in {file.path}: {some(missing)}. Only "
            "networks of the released layout can be written so; export an ordinary folder."
        )
    return found


def write_published(components: Mapping[str, Any], published: PublishedSet, folder: Path) -> None:
    """Write a pipeline's parts as the files of a set, and what else it needs beside them: `from_published` reads it.

    Args:
        components: By name.
        published: Which files.
        folder: Where to.

    Raises:
        CheckpointError: If a tensor has no published name; nothing is written then.
    """
    states = published_states(components, published)
    for file in published.files:
        path, component = folder / file.path, components[file.component]
        if file.path in states:
            path.parent.mkdir(parents=True, exist_ok=True)
            state = {key: tensor.detach().cpu().clone() for key, tensor in states.pop(file.path).items()}
            save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
            if "/" in file.path:  # of diffusers or transformers, which lay a configuration beside
                save = component.save_config if hasattr(component, "save_config") else component.config.save_pretrained
                save(path.parent)
    filled = {file.component for file in published.files}
    for name, part in published.further.items():
        if name not in filled and components.get(name) is not None:
            components[name].save_pretrained(folder / (part.folder or name))
