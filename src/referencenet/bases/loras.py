"""LoRA files beside a base model: several, each with its strength."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from referencenet.bases.names import parse_lora
from referencenet.checkpoints.containers import Container, container_of
from referencenet.checkpoints.files import check_finite, first_line, read_state
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.telling import some

HALVES = {"A": "B", "B": "A", "down": "up", "up": "down"}
"""What the two matrices of a layer are called in one layout and in another."""


def add_loras(pipe: Any, loras: Sequence[str]) -> Any:
    """Lay LoRAs over a pipeline's UNet and text encoders.

    Args:
        pipe: A pipeline of diffusers with a LoRA loader.
        loras: FILE or FILE:SCALE each, in diffusers' layout or kohya's; FILE may be a name on the hub, owner/name.

    Returns:
        The pipeline; its adapters are called `lora-1`, `lora-2` and so on.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If a file is no LoRA, or not one for this model.
        ValueError: If a scale is no number.
    """
    if not loras:
        return pipe
    if not hasattr(pipe, "load_lora_weights"):
        raise ValueError(f"{type(pipe).__name__} takes no LoRA; leave it out.")
    scales: dict[str, float] = {}
    for i, (place, scale) in enumerate(map(parse_lora, loras)):
        name = f"lora-{i + 1}"
        given: dict[str, Any] = {"pretrained_model_name_or_path_or_dict": place}
        if Path(place).is_file():
            container_of(Path(place))
            given = {"pretrained_model_name_or_path_or_dict": str(Path(place).parent), "weight_name": Path(place).name}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")  # several are meant
                pipe.load_lora_weights(**given, adapter_name=name)
        except Exception as error:  # the loader of foreign files raises whatever its parsers do
            raise CheckpointError(
                f"{place} is no LoRA for this {type(pipe).__name__} ({type(error).__name__}: "
                f"{first_line(error)[:200]}); give one that was trained on this family of models."
            ) from error
        if not any(name in adapters for adapters in pipe.get_list_adapters().values()):
            raise CheckpointError(f"{place} changes nothing in this {type(pipe).__name__}; it is no LoRA for it.")
        _check_adapter(pipe, name, place)
        scales[name] = scale
    pipe.set_adapters(list(scales), list(scales.values()))
    return pipe


def _check_adapter(pipe: Any, name: str, place: str) -> None:
    """See that a LoRA has both matrices of every layer and finite weights, whatever read it.

    Raises:
        CheckpointError: If not.
    """
    keys: set[str] = _keys(Path(place)) if Path(place).is_file() else set()
    lacking = [other for key in keys if (other := _other_half(key)) is not None and other not in keys]
    found: dict[str, Tensor] = {}
    for part, adapters in pipe.get_list_adapters().items():
        network: nn.Module = getattr(pipe, part)
        if name in adapters:
            found |= {key: weight for key, weight in network.named_parameters() if f".{name}." in key}
    lacking = lacking or [key for key, weight in found.items() if weight.is_meta]  # which nothing was read for
    if lacking:
        raise CheckpointError(
            f"{place} lacks {len(lacking)} of its tensors ({some(lacking)}), each the half of a layer; get the whole "
            "file again."
        )
    check_finite(found, place)


def _keys(path: Path) -> set[str]:
    """Of the tensors of a file."""
    if container_of(path) is not Container.SAFETENSORS:
        return set(read_state(path))
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


def _other_half(key: str) -> str | None:
    """The key of a layer's second matrix; None of what is no matrix of a LoRA."""
    found = re.search(r"(?<=lora[._])(A|B|down|up)(?=\.)", key)
    return None if found is None else f"{key[: found.start()]}{HALVES[found[0]]}{key[found.end() :]}"
