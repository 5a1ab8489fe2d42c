"""Random numbers from places: of a step, of a kind of step, of a sample. Nothing random is kept between steps."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from referencenet.training.parallel import rank, world_size

MOST = 2**63


@contextmanager
def first_weights(seed: int) -> Generator[None]:
    """Inside, what constructors draw comes from a seed, in all processes alike; torch's own generator does not move."""
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random numbers of one step of a run, others in every process that trains along."""
    return torch.Generator(device=device).manual_seed((seed * 1_000_003 + step * world_size() + rank()) % MOST)


def step_kind(seed: int, step: int) -> float:
    """A random number in [0, 1) that is the same in all processes: they wait for each other where steps differ."""
    apart = 715_827_883  # from the numbers that `step_generator` draws
    return float(torch.rand((), generator=torch.Generator().manual_seed((seed * 1_000_003 + step + apart) % MOST)))


def sample_generator(seed: int, place: int, purpose: int = 0) -> torch.Generator:
    """The random numbers of the sample at a place of a run, whichever process and batch it falls to.

    Args:
        seed: Of the run.
        place: Samples that came before, from the run's beginning.
        purpose: Numbers for one purpose do not depend on how many another draws.
    """
    return torch.Generator().manual_seed((seed * 1_000_003 + place * 64 + purpose + 1_431_655_765) % MOST)
