"""Computing losses in bfloat16, weights and their updates staying in single precision.

On a CPU two kernels are slow in bfloat16 and are kept from it: the backward pass of group norms, and that of fused
attention, which plain products beat by far on short sequences.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Precision = Literal["fp32", "bf16"]


@contextmanager
def computing_in(precision: Precision, modules: Iterable[nn.Module], device: torch.device) -> Generator[None]:
    """Inside, forward passes of these modules compute in this precision.

    Args:
        precision: `fp32` changes nothing.
        modules: Whose group norms are treated.
        device: Where they are.
    """
    if precision == "fp32":
        yield
        return
    on_cpu = device.type == "cpu"
    norms = [m for module in modules for m in module.modules() if isinstance(m, nn.GroupNorm)] if on_cpu else []
    hooks = [norm.register_forward_pre_hook(_in_single) for norm in norms]
    hooks += [norm.register_forward_hook(_out_half) for norm in norms]
    try:
        with torch.autocast(device.type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext():
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _in_single(_module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    return (given[0].float(),)


def _out_half(_module: nn.Module, _given: tuple[Tensor], result: Tensor) -> Tensor:
    return result.bfloat16()
