"""Losses in bfloat16, weights in single precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from referencenet.training.config import Precision
from referencenet.training.precision import safe_kernels


class Small(nn.Module):
    """A norm, a convolution and an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.conv(self.norm(x)).flatten(2).transpose(1, 2)[:, None]
        return F.scaled_dot_product_attention(hidden, hidden, hidden)


def gradients(module: nn.Module, precision: Precision) -> tuple[torch.dtype, list[torch.Tensor]]:
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with safe_kernels([module], torch.device("cpu")), autocast:
        result = module(x)
        result.float().square().mean().backward()
    found = [p.grad for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    return result.dtype, found


def test_gradients_are_single_and_nearly_the_same() -> None:
    module = Small()
    (exact_type, exact), (half_type, half) = gradients(module, "fp32"), gradients(module, "bf16")
    assert exact_type == torch.float32
    assert half_type == torch.bfloat16
    assert len(exact) == len(half) == 4
    for one, other in zip(exact, half, strict=True):
        assert other.dtype == torch.float32
        assert float((one - other).norm() / one.norm()) < 0.03


def test_afterwards_the_module_computes_as_before() -> None:
    module = Small()
    x = torch.randn(1, 8, 4, 4)
    before = module(x)
    with pytest.raises(RuntimeError, match="on purpose"), safe_kernels([module], torch.device("cpu")):
        raise RuntimeError("on purpose")
    assert torch.equal(module(x), before)
