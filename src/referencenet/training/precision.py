"""Computing losses in bfloat16 on a CPU, where two kernels are slow in it and are kept from it.

These are the backward pass of group norms, and that of fused attention, which plain products beat by far on short
sequences. Autocast itself is accelerate's. A CPU that has no fast products in bfloat16 computes in single precision:
there they take about a hundred times as long.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from referencenet.telling import note
from referencenet.training.config import RunConfig


def has_fast_bf16(device: torch.device) -> bool:
    """Whether a device has fast products in bfloat16; of CPUs those with AVX-512, AMX or Arm's BF16."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def computable(config: RunConfig, device: torch.device) -> RunConfig:
    """A run as the device can compute it: in single precision, with a notice, where bfloat16 would only be slow.

    Weights that are kept in bfloat16 to save memory stay so.
    """
    if config.precision != "bf16" or config.frozen == "bf16" or has_fast_bf16(device):
        return config
    note("this CPU has no fast bfloat16 (AVX-512, AMX or Arm's BF16): the run computes in fp32.")
    return replace(config, precision="fp32")


@contextmanager
def safe_kernels(modules: Iterable[nn.Module], device: torch.device) -> Generator[None]:
    """Inside, passes under autocast do without those kernels, forth and back; elsewhere than on a CPU nothing changes.

    Args:
        modules: Whose group norms are treated.
        device: Where they are.
    """
    if device.type != "cpu":
        yield
        return
    norms = [m for module in modules for m in module.modules() if isinstance(m, nn.GroupNorm)]
    hooks = [norm.register_forward_pre_hook(_in_single) for norm in norms]
    hooks += [norm.register_forward_hook(_out_half) for norm in norms]
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _in_single(_module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    return (given[0].float(),)


def _out_half(_module: nn.Module, _given: tuple[Tensor], result: Tensor) -> Tensor:
    return result.bfloat16() if torch.is_autocast_enabled("cpu") else result
