"""Low-rank weights beside frozen ones, by PEFT: what fits one's own few pictures on one card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from referencenet.training.config import LoraSettings
from referencenet.training.draws import first_weights

NAME = "trained"
"""Of the adapter."""


def add_lora(components: Mapping[str, Any], settings: LoraSettings) -> dict[str, nn.Module]:
    """Give layers low-rank weights that learn, and let nothing else learn.

    Args:
        components: A pipeline's, by name.
        settings: Rank, and which layers.

    Returns:
        The components of which something learns.

    Raises:
        ModuleNotFoundError: If PEFT is not installed.
        ValueError: If no layer is meant, or one that has no low-rank form.
    """
    if find_spec("peft") is None:
        raise ModuleNotFoundError("lora.rank is above 0, which needs peft; install referencenet[lora].")
    peft = import_module("peft")
    chosen: dict[str, nn.Module] = {}
    for component, module in components.items():
        if not isinstance(module, nn.Module):
            continue
        module.requires_grad_(False)
        layers = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        meant = [n for n in layers if any(re.fullmatch(p, f"{component}.{n}") for p in settings.targets)]
        if not meant:
            continue
        if not hasattr(module, "add_adapter"):
            raise ValueError(f"{component} takes no adapters; name layers of other components in lora.targets.")
        config = peft.LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=meant)
        with first_weights(0):
            module.add_adapter(config, adapter_name=NAME)
        chosen[component] = module
    if not chosen:
        raise ValueError(
            f"lora.targets {list(settings.targets)} match no layer; they match the whole of `component.layer`, as in "
            r"unet\.up_blocks\..*attn1\.to_[qkv]."
        )
    return chosen


LOADED = "unet", "text_encoder", "text_encoder_2"
"""Components whose low-rank weights `load_lora_weights` reads from one file."""


def save_lora(pipe: Any, modules: Mapping[str, Any], folder: Path) -> None:
    """Write low-rank weights by themselves, as diffusers reads them, with rank and alpha.

    Args:
        pipe: Whose components these are.
        modules: Components with low-rank weights. Those of `LOADED` lie in one file, which `pipe.load_lora_weights`
            reads; each other one in a folder of its own, which `pipe.COMPONENT.load_lora_adapter(..., prefix=None)`
            reads.
        folder: Where to.
    """
    peft, told = import_module("peft"), dict[str, Any]()
    for name, module in modules.items():
        if name in LOADED and hasattr(pipe, "save_lora_weights"):
            told[f"{name}_lora_layers"] = peft.get_peft_model_state_dict(module, adapter_name=NAME)
            told[f"{name}_lora_adapter_metadata"] = module.peft_config[NAME].to_dict()
        else:
            module.save_lora_adapter(folder / name, adapter_name=NAME)
    if told:
        pipe.save_lora_weights(folder, **told)
