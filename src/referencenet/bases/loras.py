"""LoRA files beside a base model: several, each with its strength."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from referencenet.bases.names import parse_lora
from referencenet.checkpoints.containers import container_of
from referencenet.checkpoints.files import first_line
from referencenet.checkpoints.keymap import CheckpointError


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
        scales[name] = scale
    pipe.set_adapters(list(scales), list(scales.values()))
    return pipe
