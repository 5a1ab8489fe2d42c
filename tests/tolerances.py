"""Relative tolerances of the tests, in one place: ||ours - expected|| / ||expected||."""

import torch

ROUNDING = 2e-5  # float32, the same mathematics in another order of operations
DOUBLE = 1e-10  # the same in float64
BFLOAT16 = 4e-2  # a whole UNet pass in bfloat16 against float32
FINITE_DIFFERENCES = 1e-4  # central differences in float64


def relative_error(ours: torch.Tensor, expected: torch.Tensor) -> float:
    """Return ||ours - expected|| / ||expected||; infinite if anything is not finite."""
    if ours.shape != expected.shape:
        raise AssertionError(f"the shapes differ: {tuple(ours.shape)} and {tuple(expected.shape)}")
    if not bool(ours.isfinite().all() and expected.isfinite().all()):
        return float("inf")
    return float((ours.double() - expected.double()).norm() / expected.double().norm())
