"""Which samples a step learns from, as a pure function of its number: there is no state to keep or to lose."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from referencenet.training.config import RunConfig
from referencenet.training.draws import sample_generator


@dataclass(frozen=True, kw_only=True)
class StepSampler:
    """Every sample once in each round, in an order of its own.

    Attributes:
        count: Of the samples.
        batch: Samples of one process and batch.
        seed: Of the orders.
    """

    count: int
    batch: int
    seed: int = 0

    def places(self, batch: int, rank: int = 0, world: int = 1) -> list[int]:
        """The places in the run of a batch's samples, counted from the run's beginning over all processes.

        Args:
            batch: Number of the batch.
            rank: Of the process.
            world: Processes.
        """
        first = (batch * world + rank) * self.batch
        return list(range(first, first + self.batch))

    def indices(self, batch: int, rank: int = 0, world: int = 1) -> list[int]:
        """The samples of a batch."""
        return [self.at(place) for place in self.places(batch, rank, world)]

    def at(self, place: int) -> int:
        """The sample at a place of the run."""
        return int(_order(self.count, self.seed, place // self.count)[place % self.count])


@functools.lru_cache(maxsize=4)
def _order(count: int, seed: int, turn: int) -> torch.Tensor:
    """The order of a round, (count,)."""
    return torch.randperm(count, generator=sample_generator(seed, turn, 63))


class _Batches(Dataset[Any]):
    """Batches by their number."""

    def __init__(
        self, recipe: Any, samples: Any, sampler: StepSampler, config: RunConfig, rank: int, world: int
    ) -> None:
        self.recipe, self.samples, self.sampler, self.config = recipe, samples, sampler, config
        self.rank, self.world = rank, world

    def __getitem__(self, number: int) -> Any:
        places = self.sampler.places(number, self.rank, self.world)
        samples = [self.samples[self.sampler.at(place)] for place in places]
        return self.recipe.batch_of(number // self.config.accumulate, places, samples)


def batches_of(recipe: Any, samples: Any, config: RunConfig, rank: int = 0, world: int = 1) -> Any:
    """What `fit` takes its batches from.

    Args:
        recipe: Reads samples, in worker processes where the run has some.
        samples: To learn from.
        config: Of the run.
        rank: Of this process.
        world: Processes.
    """
    sampler = StepSampler(count=len(samples), batch=config.batch, seed=config.seed)
    data = _Batches(recipe, samples, sampler, config, rank, world)

    def coming(first: int) -> Iterator[Any]:
        numbers = range(first, config.steps * config.accumulate)
        return iter(DataLoader(data, batch_size=None, sampler=numbers, num_workers=config.data.workers))

    return coming
