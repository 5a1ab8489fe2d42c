"""Read passes whose sites see other rows than the batch has: chunks of it, or a last part that attends otherwise.

FreeNoise's split inference runs layers over some rows at a time; perturbed-attention guidance (Ahn et al. 2024, arXiv
2403.17377) appends a part to the batch that attends to itself alone at some layers. A row plan speaks of the whole
batch, so it is cut to what a site sees. Letters: r rows (with their frames), n tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.pipelines.free_noise_utils import SplitInferenceModule
from torch import Tensor, nn

from referencenet.links.heads import finish, split_heads
from referencenet.links.kind import Task
from referencenet.links.rows import RowPlan, plan_rows
from referencenet.links.seats import PERTURBED, ProcessorSeat, Seat


def cut_plan(plan: RowPlan, start: int, stop: int, frames: int = 1) -> RowPlan:
    """A plan for some rows of its batch.

    Args:
        plan: For the whole batch.
        start: The first row, frames counted.
        stop: Behind the last one.
        frames: How many rows a sample has.
    """
    sources, weights, zeros = [0] * plan.rows, [0.0] * plan.rows, [False] * plan.rows
    for section in plan.sections:
        readers = (section.stop - section.start) // (section.bank_stop - section.bank_start)
        for row in range(section.start, section.stop):
            sources[row] = section.bank_start + (row - section.start) // readers
            weights[row], zeros[row] = section.amount, section.reads_zeros
    samples = [row // frames for row in range(start, stop)]
    return plan_rows(
        [sources[i] for i in samples], [weights[i] for i in samples], reads_zeros=[zeros[i] for i in samples]
    )


class ReadChunks:
    """Reads at a site that sees some rows after the others, in their order.

    Args:
        read: A plan to the task that reads by it.
        plan: For the whole batch.
    """

    def __init__(self, read: Callable[[RowPlan], Task], plan: RowPlan) -> None:
        self.read = read
        self.plan = plan
        self.total = 0
        self.done = 0

    def begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A hook of the module that cuts: all rows are about to come."""
        given = next(value for value in (*kwargs.values(), *args) if isinstance(value, Tensor))
        self.total, self.done = given.shape[0], 0

    def __call__(self, *args: Any) -> Tensor:
        """As the task for the rows that come now."""
        count = next(value for value in args if isinstance(value, Tensor)).shape[0]
        start, self.done = self.done, self.done + count
        plan = cut_plan(self.plan, start, self.done, self.total // self.plan.rows)
        return self.read(plan)(*args)


class ReadUnperturbed:
    """Reads in all parts of a batch but the last, whose attention is the identity.

    Args:
        read: A plan to the task that reads by it.
        plan: For the whole batch.
        parts: Of the batch.
    """

    def __init__(self, read: Callable[[RowPlan], Task], plan: RowPlan, parts: int) -> None:
        self.read = read
        self.plan = cut_plan(plan, 0, plan.rows - plan.rows // parts)
        self.parts = parts

    def __call__(self, attn: Attention, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """From (r, n, c) to the same shape."""
        rows = hidden_states.shape[0] - hidden_states.shape[0] // self.parts
        mask = None if attention_mask is None else attention_mask[:rows]
        read = self.read(self.plan)(attn, hidden_states[:rows], mask)
        return torch.cat([read, finish(attn, split_heads(attn, attn.to_v(hidden_states[rows:])))])


def perturbed_parts(seat: Seat) -> int:
    """How many parts a batch has at this seat, the last of them perturbed; 0: none is."""
    return PERTURBED.get(type(seat.original).__name__, 0) if isinstance(seat, ProcessorSeat) else 0


def cutters_of(unet: nn.Module) -> list[SplitInferenceModule]:
    """The modules that cut their input into chunks."""
    return [module for module in unet.modules() if isinstance(module, SplitInferenceModule)]


def cutter_of(seat: Seat, cutters: Sequence[SplitInferenceModule]) -> SplitInferenceModule | None:
    """What cuts the input of a seat's module; None: it sees all rows.

    Raises:
        TypeError: If it cuts a batch whose last part is perturbed.
    """
    inside = (cutter for cutter in cutters if any(part is seat.module for part in cutter.module.modules()))
    cutter = next(inside, None)
    if cutter is not None and perturbed_parts(seat):
        raise TypeError(
            f"{seat.site.name} is cut into chunks (enable_free_noise_split_inference) and perturbed, and whoever "
            "perturbs takes each chunk for a whole batch; leave one of both out."
        )
    return cutter
