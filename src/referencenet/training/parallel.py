"""Which of several processes this one is: `accelerate launch` or `torchrun` start them, accelerate joins them."""

from __future__ import annotations

from accelerate import PartialState
from torch import distributed


def join(device: str) -> PartialState:
    """Join the other processes if there are any; what accelerate knows of them.

    Args:
        device: Where this one computes, such as cpu.
    """
    return PartialState(cpu=device == "cpu")


def rank() -> int:
    """Number of this process, 0 where it is alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wait() -> None:
    """Wait until all processes are here."""
    if distributed.is_initialized():
        distributed.barrier()
