"""Which pipeline is calling a UNet, and what its loop says about the pass: read from the call stack.

Several pipelines may share one UNet, made before a link was attached or after it, and no object that all of them call
knows which of them is calling. The stack does: a pipeline's method waits there for the UNet. Its arguments and
variables are those of this very call, whatever the pipeline's attributes still say of an earlier one. They are looked
at by the names that diffusers uses in all its pipelines, and taken only where the pass itself confirms them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from torch import Tensor, nn

State = TypeVar("State")


@dataclass(frozen=True)
class Caller:
    """A pipeline's call that waits for the UNet. Not to be kept: it holds everything that the call holds.

    Attributes:
        pipe: The pipeline.
        frames: Its methods on the stack, the innermost first; the last one is the call.
    """

    pipe: Any
    frames: Sequence[FrameType]

    def local(self, name: str) -> Any:
        """A variable of the call, the innermost method's first; None where there is none of this name."""
        return next((frame.f_locals[name] for frame in self.frames if name in frame.f_locals), None)

    def kept(self, name: str, make: Callable[[], State]) -> State:
        """What `make` made at the call's first pass; it lives in the call's frame and goes with it.

        Args:
            name: Of the value; no name that a program could use for a variable.
            make: Makes it.
        """
        kept = self.frames[-1].f_locals
        if name not in kept:
            kept[name] = make()
        return kept[name]

    @property
    def scheduler(self) -> Any:
        """What leads the loop: its own `scheduler`, if it has such a variable, else the pipeline's."""
        own = self.local("scheduler")
        return own if isinstance(own, SchedulerMixin) else self.pipe.scheduler

    def step(self, timestep: Any) -> tuple[int, int] | None:
        """The number of this step, from 0, and of how many; None if the loop does not say.

        A step may have several passes, and fewer steps may run than the scheduler has: the loop's own counter is right
        in both cases. Without one, the timestep's place among the loop's tells, if it is there once.

        Args:
            timestep: Of the pass: a number, or a tensor of any shape with equal entries.
        """
        for timesteps in self._schedules():
            for frame in self.frames:
                index = frame.f_locals.get("i")
                if isinstance(index, int) and 0 <= index < len(timesteps) and is_same(timesteps[index], timestep):
                    return index, len(timesteps)
        for timesteps in self._schedules():
            found = [index for index, one in enumerate(timesteps) if is_same(one, timestep)]
            if len(found) == 1:
                return found[0], len(timesteps)
        return None

    def _schedules(self) -> Iterator[Sequence[Any]]:
        """What the loop may be running over: its own timesteps, else the scheduler's."""
        for given in (self.local("timesteps"), getattr(self.scheduler, "timesteps", None)):
            if isinstance(given, Sequence) or (isinstance(given, Tensor) and given.ndim == 1):
                yield given  # pyright: ignore[reportReturnType] - a tensor of one axis is read as a sequence


def find_caller(unet: nn.Module) -> Caller:
    """The innermost pipeline's call that led here and whose pipeline has this UNet.

    Args:
        unet: The UNet itself, not a compiled wrapper of it.

    Raises:
        RuntimeError: If no pipeline is calling.
    """
    frames: list[FrameType] = []
    pipe = None
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - inspect.currentframe is the same
    while frame is not None:
        owner = _owner(frame)
        if pipe is None and owner is not None and has_unet(owner, unet):
            pipe = owner
        if pipe is not None and owner is pipe:
            frames.append(frame)
            if frame.f_code.co_name == "__call__":
                break
        frame = frame.f_back
    if pipe is None:
        raise RuntimeError(
            "the linked UNet was called outside of a pipeline's call, so nothing says which rows are guidance's and "
            "what the schedule is; call a pipeline, or in a loop of your own use `attach(unet)` with `link.write` and "
            "`link.reading`."
        )
    return Caller(pipe, frames)


def has_unet(pipe: Any, unet: nn.Module) -> bool:
    """Whether a pipeline has this UNet: itself, compiled, or inside of a module of the user's."""
    parts = [part for part in vars(pipe).values() if isinstance(part, nn.Module)]
    if any(getattr(part, "_orig_mod", part) is unet for part in parts):
        return True
    return any(module is unet for part in parts for module in part.modules())


def is_same(first: Any, second: Any) -> bool:
    """Whether two timesteps are equal; views of one element are, without a look that would wait for the device."""
    tensors = isinstance(first, Tensor) and isinstance(second, Tensor)
    if tensors and first.dtype == second.dtype and first.data_ptr() == second.data_ptr() != 0:
        return True
    return float(torch.as_tensor(first).flatten()[0]) == float(torch.as_tensor(second).flatten()[0])


def _owner(frame: FrameType) -> DiffusionPipeline | None:
    """The pipeline whose method runs in a frame."""
    code = frame.f_code
    if not code.co_argcount or code.co_varnames[0] != "self":
        return None
    owner = frame.f_locals.get("self")
    return owner if isinstance(owner, DiffusionPipeline) else None
