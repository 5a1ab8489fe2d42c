"""Work spread over the processes of accelerate: each does its share, and all hold every result.

Results come back job by job, in the order of the jobs, so what is added up is added up in one order, and several
processes give the bits of one. Started by `accelerate launch` or `torchrun`; without them there is one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """Which process this is, and of how many.

    Attributes:
        rank: From 0, the main process.
        count: From 1.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def started(cls) -> Processes:
        """The processes that were started together.

        Raises:
            ValueError: If this process was started alone.
        """
        if not PartialState().use_distributed:
            raise ValueError(
                "across_processes=True spreads work over several processes, but this one was started alone; start the "
                "script with `accelerate launch --num_processes 2 ...` or `torchrun`, or leave the option out."
            )
        state = PartialState()
        return cls(state.process_index, state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def each(self, jobs: Sequence[Callable[[], Tensor]], like: Tensor) -> Iterator[Tensor]:
        """Do jobs, each in one process.

        Args:
            jobs: The same in every process. Each gives a tensor of the shape, type and device of `like`.
            like: Stands in where a process has nothing to do; of any shape, such as (b, c, f, h, w).

        Yields:
            The results, in the order of the jobs, in every process.
        """
        if self.count == 1:
            for job in jobs:
                yield job()
            return
        rounds = -(-len(jobs) // self.count)
        mine = [job().to(like) for job in jobs[self.rank :: self.count]]
        mine += [torch.zeros_like(like)] * (rounds - len(mine))
        meeting = PartialState().device  # NCCL meets on GPUs only
        everyone = cast("Tensor", gather(torch.stack(mine).to(meeting))).to(like.device)  # (processes rounds, ...)
        for i in range(len(jobs)):
            yield everyone[i % self.count * rounds + i // self.count]

    def as_main(self, tensor: Tensor) -> Tensor:
        """The main process's tensor, in every process.

        Args:
            tensor: Of any shape, such as (b, c, f, h, w), that is the same in every process.
        """
        if self.count == 1:
            return tensor
        return cast("Tensor", broadcast(tensor.to(PartialState().device).contiguous())).to(tensor.device)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            PartialState().wait_for_everyone()


ALONE = Processes()
