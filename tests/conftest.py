"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from tiny import Tiny, tiny


@pytest.fixture(autouse=True)
def _global_state_stays() -> Iterator[None]:
    """No test leaves torch's gradient mode or default dtype changed, or its global random generator moved."""
    generator = torch.get_rng_state()
    before = torch.is_grad_enabled(), torch.get_default_dtype()
    yield
    torch.set_rng_state(generator)
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == before


@pytest.fixture
def make_tiny() -> Callable[[str], Tiny]:
    """Return the maker of tiny pipelines, `make_tiny(kind)`."""
    return tiny


@pytest.fixture
def sd() -> Tiny:
    """Return a fresh tiny Stable Diffusion 1.x text-to-image pipeline."""
    return tiny("sd")
