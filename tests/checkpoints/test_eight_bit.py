"""Weights in eight bits: how large they are, how far off, and what does not fit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from referencenet.checkpoints.eight_bit import LARGE, SCALE, packed, unpacked


@given(seed=st.integers(0, 2**31), exponent=st.integers(-6, 4), shape=st.sampled_from([(64, 32), (3, 40, 3, 3)]))
def test_each_number_is_off_by_half_a_step_of_its_channel_at_most(
    seed: int, exponent: int, shape: tuple[int, ...]
) -> None:
    weights = 10.0**exponent * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    back = unpacked(packed({"weight": weights}))["weight"]
    assert back.dtype == torch.float32
    largest = weights.flatten(1).abs().amax(dim=1).view(-1, *(1,) * (weights.ndim - 1))
    assert bool(((back - weights).abs() <= largest / 254 * 1.001).all())


def test_large_tensors_take_half_of_half_precision_and_small_ones_stay() -> None:
    tensors = {"weight": torch.randn(64, 96, 3, 3), "bias": torch.randn(64), "small": torch.randn(4, 4),
               "count": torch.arange(3), "nothing": torch.zeros(LARGE // 2, 2)}  # fmt: skip
    kept = packed(tensors)
    size = sum(kept[name].nbytes for name in ("weight", "weight" + SCALE))
    assert size < 0.51 * tensors["weight"].half().nbytes
    back = unpacked(kept)
    assert back.keys() == tensors.keys()
    assert [back[name].dtype for name in ("bias", "small", "count")] == [torch.float16, torch.float16, torch.int64]
    assert torch.equal(back["nothing"], tensors["nothing"])


@pytest.mark.parametrize(
    "kept",
    [
        {"weight" + SCALE: torch.ones(4)},
        {"weight": torch.ones(4, 300, dtype=torch.int8), "weight" + SCALE: torch.ones(5)},
    ],
    ids=["no tensor", "another shape"],
)
def test_factors_that_do_not_fit_are_refused(kept: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        unpacked(kept)
