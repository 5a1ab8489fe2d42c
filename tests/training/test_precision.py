"""Losses in bfloat16, weights in single precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from referencenet.telling import Notice
from referencenet.training import precision
from referencenet.training.config import Precision, RunConfig
from referencenet.training.precision import computable, has_fast_bf16, safe_kernels


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


def test_bf16_is_computed_where_it_is_fast_or_saves_memory() -> None:
    cpu, config = torch.device("cpu"), RunConfig(steps=1, precision="bf16")
    fast = has_fast_bf16(cpu)
    assert computable(config, cpu).precision == ("bf16" if fast else "fp32")
    kept = replace(config, frozen="bf16")  # weights that lie in it need autocast
    assert computable(kept, cpu) == kept
    assert computable(config, torch.device("cuda")) == config
    assert computable(replace(config, precision="fp32"), cpu).precision == "fp32"


def test_a_cpu_without_fast_bf16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda _: False)
    with pytest.warns(Notice, match="no fast bfloat16"):
        found = computable(RunConfig(steps=1, precision="bf16"), torch.device("cpu"))
    assert found.precision == "fp32"
