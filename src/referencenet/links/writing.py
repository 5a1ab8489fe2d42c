"""What sites do in a write pass: leave the self-attention's input in a bank, or the keys and values made of it.

The pass itself goes on as it would without a link, and ends behind the last site that writes. Letters: r rows, n
tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from diffusers.models.attention_processor import Attention
from torch import Tensor

from referencenet.links.bank import ReferenceBank
from referencenet.links.heads import finish, own_mask, project, split_heads
from referencenet.links.kernel import attend
from referencenet.links.masks import Pyramid
from referencenet.links.rows import RowPlan


class WriteDone(Exception):
    """Raised behind the last site of a write pass: nothing after it is needed."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A write pass.

    Attributes:
        bank: What it fills.
        projected: Whether keys and values are kept instead of the self-attention's inputs.
        readable: Mask of the reference, for what is written as a statistic.
        last: Name of the site behind which the pass ends; None: it runs to its end.
    """

    bank: ReferenceBank = field(default_factory=ReferenceBank)
    projected: bool
    readable: Pyramid | None = None
    last: str | None = None

    def done_at(self, site: str) -> None:
        """Leave the pass behind its last site."""
        if site == self.last:
            raise WriteDone


@dataclass
class WriteHidden:
    """Leave the self-attention's input (r, n, c) in a bank, for a reader with weights of its own."""

    site: str
    writing: Writing
    original: Callable[..., Tensor]

    def __call__(self, attn: Attention, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Write, then plain attention, unless nothing after it is needed."""
        self.writing.bank.hidden[self.site] = hidden_states
        self.writing.done_at(self.site)
        return self.original(attn, hidden_states, None, attention_mask)


@dataclass
class WriteProjected:
    """Leave the keys and values that the pass computes anyway, for the same UNet as reader."""

    site: str
    writing: Writing

    def __call__(self, attn: Attention, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Write, then plain attention with the same keys and values, unless nothing after it is needed."""
        key, value = project(attn, hidden_states)
        self.writing.bank.projected[self.site] = (key, value)
        self.writing.done_at(self.site)
        query = split_heads(attn, attn.to_q(hidden_states))
        plain = RowPlan(rows=hidden_states.shape[0], sections=())
        mask = own_mask(attn, attention_mask, hidden_states)
        return finish(attn, attend(query, split_heads(attn, key), split_heads(attn, value), (), plain, mask))
