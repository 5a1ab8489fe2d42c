"""Fixtures shared by all tests, and what keeps a process of the suite cheap and its numbers the same."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator

import pytest

os.environ.setdefault("MKL_CBWR", "COMPATIBLE")  # one input, one result, wherever in memory weights were loaded to
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IS_WORKER:
    os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start, too

import torch  # noqa: E402 - reads those

from referencenet.sampling.encodings import ENCODINGS  # noqa: E402
from tiny import Tiny, tiny  # noqa: E402

if IS_WORKER:
    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What the imports made stays; the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _global_state_stays() -> Iterator[None]:
    """No test leaves torch's gradient mode or default dtype changed, its global generator moved, or encodings."""
    ENCODINGS.clear()
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
