"""Hallo's reading under guidance: the frames of the reading pass read the bank's two rows in turn.

The published code repeats the reference's tokens over frames the wrong way round: row i of the folded batch (row =
pass * f + frame) reads the portrait of pass i mod 2. Both banks hold one portrait, written beside different contexts.
Trained weights are used this way; training itself is not (`Concat`). Letters: p passes, b samples, f frames, n tokens,
c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from referencenet.links.concat import Concat, Read
from referencenet.links.kernel import ReferenceTokens
from referencenet.links.rows import RowPlan, plan_rows


@dataclass(frozen=True, kw_only=True)
class Tiled(Concat):
    """`Concat`, but where some rows of a batch read nothing, the frames of the others read two bank rows in turn.

    Attributes:
        rows: Bank row of the first pass's portrait and of the second's.
    """

    rule: ClassVar[str] = "attention over [own; reference], of two references in turn where frames are guided"

    rows: tuple[int, int] = (0, 1)

    def read(self, references: Sequence[ReferenceTokens], plan: RowPlan) -> Read:
        """Attention over own and reference tokens."""
        return ReadInTurn(references, plan, self.rows)


@dataclass
class ReadInTurn(Read):
    """Read, with frames sorted by the bank row that they read, so that each row is attended once.

    Attributes:
        bank_rows: As of `Tiled`.
    """

    bank_rows: tuple[int, int] = (0, 1)
    orders: dict[int, tuple[list[int], list[int], RowPlan]] = field(
        default_factory=dict[int, tuple[list[int], list[int], RowPlan]]
    )

    def __call__(self, attn: Attention, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Attention of (p b f, n, c)."""
        rows = hidden_states.shape[0]
        if self.plan.rows == sum(section.stop - section.start for section in self.plan.sections):
            return super().__call__(attn, hidden_states, attention_mask)  # all rows read: there is no guidance
        if rows not in self.orders:
            self.orders[rows] = self._order(rows // self.plan.rows)
        order, back, plan = self.orders[rows]
        index, inverse = (torch.tensor(each, device=hidden_states.device) for each in (order, back))
        mask = attention_mask if attention_mask is None or attention_mask.shape[0] == 1 else attention_mask[index]
        return Read(self.references, plan)(attn, hidden_states[index], mask)[inverse]

    def _order(self, frames: int) -> tuple[list[int], list[int], RowPlan]:
        """The rows in an order in which those that read one bank row are neighbours, its inverse, and their plan."""
        reading = {row for section in self.plan.sections for row in range(section.start, section.stop)}
        sources = [
            self.bank_rows[(frames + frame) % 2] if row in reading else -1
            for row in range(self.plan.rows)
            for frame in range(frames)
        ]
        order = sorted(range(len(sources)), key=lambda row: sources[row])
        back = sorted(range(len(order)), key=lambda place: order[place])
        sorted_sources = [sources[row] for row in order]
        plan = plan_rows([max(s, 0) for s in sorted_sources], [float(s >= 0) for s in sorted_sources])
        return order, back, plan
