"""Where weights rest between passes, and what they compute in: accelerate's and diffusers' hooks, asked and obeyed.

A reader's layers project a bank outside of a pass or in the midst of one, and a write pass ends before its network
does: hooks that bring weights and take them away expect neither. Only hooks are looked at; no weight is moved here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

GROUP = "group_offloading"
CASTING = "layerwise_casting"
"""Names of diffusers' hooks."""


def bring(unet: nn.Module) -> None:
    """Bring a UNet that rests elsewhere (accelerate's offloading) to where it computes, as its next pass would."""
    hook = getattr(unet, "_hf_hook", None)
    if hook is not None:
        hook.pre_forward(unet)


def rests_in_groups(unet: nn.Module) -> bool:
    """Whether layers come and go during a pass (diffusers' group offloading): none must be called outside of one."""
    return any(_hook(module, GROUP) is not None for module in unet.modules())


def send_back(unet: nn.Module) -> None:
    """Let every group rest again, behind a pass that ended before its network did."""
    for module in unet.modules():
        hook = _hook(module, GROUP)
        if hook is not None and hook.group.offload_leader is module:
            hook.group.offload_()


def compute_dtype(layer: nn.Module) -> torch.dtype | None:
    """The type in which a layer takes its input; None: any, as with eight-bit or quantised weights.

    Args:
        layer: A linear layer, also one that LoRA layers wrap.
    """
    base: Any = getattr(layer, "base_layer", layer)
    casting = _hook(base, CASTING)
    if casting is not None:  # the weight's own type is that of storage
        return casting.compute_dtype
    dtype: torch.dtype = base.weight.dtype
    return dtype if dtype.is_floating_point and dtype.itemsize > 1 else None


def _hook(module: nn.Module, name: str) -> Any:
    registry = getattr(module, "_diffusers_hook", None)
    return None if registry is None else registry.get_hook(name)
