"""The attention link: keys and values of self-attention become those of self and reference together.

Reference-Only (sd-webui ControlNet, 2023) and, with a writer of their own, Animate Anyone, MagicAnimate, AniPortrait,
Hallo, MagicPose, IDM-VTON, Parts2Whole and DiffPortrait3D: attention(Q, [K_self; K_ref], [V_self; V_ref]). The
processor of a site holds nothing but its own task, which exists only while a pass runs. It does not know guidance,
schedules or pictures. Letters: r rows, n tokens, c channels, h heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from diffusers.models.attention_processor import Attention as AttentionModule
from torch import Tensor

from referencenet.links.bank import ReferenceBank
from referencenet.links.kernel import ReferenceTokens, attend
from referencenet.links.rows import RowPlan, plan_rows
from referencenet.links.sites import STAGES, Stage


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Read references in self-attention.

    Attributes:
        weight: How many sites take part, in [0, 1]: those of rank i / n below it, widest first.
        stages: The parts of the UNet whose sites take part.
    """

    weight: float = 1.0
    stages: tuple[Stage, ...] = STAGES

    def chooses(self, rank: float) -> bool:
        """Whether a site of this rank takes part."""
        return self.weight > rank


class WriteDone(Exception):
    """Raised behind the last site of a write pass: nothing after it is needed."""


class AttentionTask(Protocol):
    """What a site does during a pass instead of plain attention."""

    def __call__(self, attn: AttentionModule, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The self-attention's output for (r, n, c)."""
        ...


@dataclass
class Slot:
    """Where a site finds its task; None: plain attention by the processor that was there before."""

    task: AttentionTask | None = None


class ReferenceAttnProcessor:
    """An attention processor that does its slot's task, or what the original processor does."""

    def __init__(self, original: Callable[..., Tensor]) -> None:
        self.original = original
        self.slot = Slot()

    def __call__(self, attn: AttentionModule, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, temb: Tensor | None = None, *args: Any,
                 **kwargs: Any) -> Tensor:  # fmt: skip
        """Self-attention of (r, n, c), as diffusers calls it."""
        task = self.slot.task
        if task is None:
            return self.original(attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs)
        return task(attn, hidden_states, attention_mask)


@dataclass
class WriteHidden:
    """Leave the self-attention's input (r, n, c) in a bank, for a reader with weights of its own."""

    site: str
    bank: ReferenceBank
    original: Callable[..., Tensor]
    is_last: bool

    def __call__(self, attn: AttentionModule, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Write, then plain attention, unless nothing after it is needed."""
        self.bank.hidden[self.site] = hidden_states
        if self.is_last:
            raise WriteDone
        return self.original(attn, hidden_states, None, attention_mask)


@dataclass
class WriteProjected:
    """Leave the keys and values that the pass computes anyway, for the same UNet as reader."""

    site: str
    bank: ReferenceBank
    is_last: bool

    def __call__(self, attn: AttentionModule, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Write, then plain attention with the same keys and values, unless nothing after it is needed."""
        key, value = project(attn, hidden_states)
        self.bank.projected[self.site] = (key, value)
        if self.is_last:
            raise WriteDone
        query = split_heads(attn, attn.to_q(hidden_states))
        plain = RowPlan(rows=hidden_states.shape[0], sections=())
        mask = own_mask(attn, attention_mask, hidden_states)
        read = attend(query, split_heads(attn, key), split_heads(attn, value), (), plain, mask)
        return finish(attn, read)


@dataclass
class Read:
    """Attend to self and references.

    Attributes:
        references: What each active reference offers here.
        plan: Which rows read.
    """

    references: Sequence[ReferenceTokens]
    plan: RowPlan

    def __call__(self, attn: AttentionModule, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Attention over [self; references] for the rows of the plan, plain attention for the others."""
        query = split_heads(attn, attn.to_q(hidden_states))
        key, value = (split_heads(attn, x) for x in project(attn, hidden_states))
        mask = own_mask(attn, attention_mask, hidden_states)
        return finish(attn, attend(query, key, value, self.references, self.plan, mask))


@dataclass
class ReadOnce:
    """`Read` for banks that a single pass reads: tokens are made when the pass comes here, and let go behind it.

    Attributes:
        references: Makes what each active reference offers here, taking it out of its bank.
        plan: Which rows read.
    """

    references: Callable[[], Sequence[ReferenceTokens]]
    plan: RowPlan

    def __call__(self, attn: AttentionModule, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """As `Read`."""
        references = self.references()
        plan = self.plan if references else RowPlan(rows=self.plan.rows, sections=())
        return Read(references, plan)(attn, hidden_states, attention_mask)


@dataclass
class ReadFirst:
    """Sharing inside a batch (StyleAligned, Hertz et al. 2023, without its AdaIN): every picture reads the first.

    Attributes:
        halves: Guidance halves in the batch, each with a first picture of its own.
        weights: Per half how much it reads.
        log_weight: Of the first picture's tokens.
    """

    halves: int
    weights: Sequence[float]
    log_weight: float = 0.0

    def __call__(self, attn: AttentionModule, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Attention of (r, n, c), r = halves x pictures."""
        query = split_heads(attn, attn.to_q(hidden_states))
        key, value = (split_heads(attn, x) for x in project(attn, hidden_states))
        pictures = hidden_states.shape[0] // self.halves
        first = ReferenceTokens(key=key[::pictures], value=value[::pictures], log_weight=self.log_weight)
        sources = [half for half in range(self.halves) for _ in range(pictures)]
        weights = [0.0 if i == 0 else self.weights[half] for half in range(self.halves) for i in range(pictures)]
        mask = own_mask(attn, attention_mask, hidden_states)
        return finish(attn, attend(query, key, value, (first,), plan_rows(sources, weights), mask))


def project(attn: AttentionModule, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (r, n, c) of a self-attention's input (r, n, c)."""
    return attn.to_k(hidden_states), attn.to_v(hidden_states)


def split_heads(attn: AttentionModule, hidden_states: Tensor) -> Tensor:
    """(r, n, c) to (r, h, n, d)."""
    return hidden_states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def own_mask(attn: AttentionModule, attention_mask: Tensor | None, hidden_states: Tensor) -> Tensor | None:
    """The mask of the own tokens as SDPA takes it: (r, h, 1, n)."""
    if attention_mask is None:
        return None
    rows, tokens, _ = hidden_states.shape
    mask = attn.prepare_attention_mask(attention_mask, tokens, rows)
    return mask.view(rows, attn.heads, -1, mask.shape[-1])


def finish(attn: AttentionModule, hidden_states: Tensor) -> Tensor:
    """Heads (r, h, n, d) together again and through the output projection: (r, n, c)."""
    hidden_states = hidden_states.transpose(1, 2).flatten(2)
    for layer in attn.to_out:
        hidden_states = layer(hidden_states)
    return hidden_states / attn.rescale_output_factor
