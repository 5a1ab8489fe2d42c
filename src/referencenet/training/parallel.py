"""Data parallelism in its plainest form: processes of `torchrun` draw different batches and average gradients.

On CPU this is also the steadier way to use several cores: two processes of one thread each lose little when
something else runs beside them, where two threads of one process wait for each other at every operation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, distributed


def join() -> None:
    """Join the other processes if `torchrun` started this one; else do nothing."""
    if "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def leave() -> None:
    """Leave the other processes, where there are any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 where it is alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Make every process hold the mean of all processes' gradients; where none has one, there is none afterwards."""
    if world_size() == 1:
        return
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([present, *(gradient.flatten() for gradient in gradients)])
    distributed.all_reduce(flat)
    found, *means = (flat / world_size()).split([len(parameters), *(g.numel() for g in gradients)])
    for parameter, gradient, mean, share in zip(parameters, gradients, means, found.tolist(), strict=True):
        if share:  # in place: the fused optimizer wants the gradient in its parameter's layout
            gradient.copy_(mean.view_as(gradient))
        else:
            parameter.grad = None


def wait() -> None:
    """Wait until all processes are here."""
    if world_size() > 1:
        distributed.barrier()
