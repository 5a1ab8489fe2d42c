"""The replacing link: a denoiser's cross-attention reads the reference alone, where Stable Diffusion reads words.

EMO (arXiv 2402.17485): with n the input of the cross-attention and r what the writer's self-attention gave,

    x + attn2(q = n, kv = r)

Own tokens take no part, so a row that reads nothing adds exactly nothing, not even the bias of the output projection.
The writer is a network of its own, whose sites are its self-attentions. Letters: r rows, h heads, n tokens, t reference
tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from referencenet.links.heads import finish, split_heads
from referencenet.links.kernel import ReferenceTokens, amount_at
from referencenet.links.kind import Kind, Task
from referencenet.links.reading import ReadBank
from referencenet.links.rows import RowPlan, Section
from referencenet.links.seats import InputSeat, ReferenceAttnProcessor, Seat
from referencenet.links.sites import Site, attention_sites
from referencenet.links.writing import WriteHidden, Writing

Feature = Literal["attn1_output", "norm1", "attn1_residual"]
"""What the writer leaves: its self-attention's output, its input, or the features behind it with the residual."""


class ReferenceAttention(Attention):
    """A cross-attention to a reference as wide as its queries; its block leaves it out where nothing is read."""

    @property
    def reads(self) -> bool:
        """Whether a link has it read something in this pass."""
        processor = self.processor
        return isinstance(processor, ReferenceAttnProcessor) and processor.slot.task is not None


@dataclass(frozen=True, kw_only=True)
class Instead(Kind):
    """Read the reference in every `ReferenceAttention`; write at the self-attentions of a UNet without any.

    Attributes:
        feature: What is written.
    """

    rule: ClassVar[str] = "attention over reference alone"
    kept: ClassVar[str] = "outputs of self-attention"

    feature: Feature = "attn1_output"

    def check(self) -> None:
        """The feature is one of those that a writer can leave."""
        if self.feature not in get_args(Feature):
            raise ValueError(f"the feature of a reference is {self.feature!r}; expected one of {get_args(Feature)}.")

    def candidates(self, unet: nn.Module) -> list[Site]:
        """The cross-attentions that read, named after the self-attentions of their blocks; in a writer the latter."""
        sites = attention_sites(unet)
        blocks = {site: unet.get_submodule(site.name.rpartition(".")[0]) for site in sites}
        readers = [site for site in sites if isinstance(getattr(blocks[site], "attn2", None), ReferenceAttention)]
        if readers:
            return [replace(site, beside="attn2") for site in readers]
        return [replace(site, beside="norm3") for site in sites] if self.feature == "attn1_residual" else sites

    def seat(self, unet: nn.Module, site: Site) -> Seat:
        """At a processor, or before the norm behind the residual."""
        return InputSeat(unet, site) if site.beside == "norm3" else super().seat(unet, site)

    def write(self, seat: Any, writing: Writing) -> Task:
        """Leave the feature.

        Raises:
            TypeError: If the UNet is one that reads.
        """
        if isinstance(seat.module, ReferenceAttention):
            raise TypeError(f"{seat.site.reader} reads references and writes none; write with a UNet of its own.")
        if self.feature == "attn1_residual":
            return WriteInput(seat.site.name, writing)
        if self.feature == "norm1":
            return WriteHidden(seat.site.name, writing, seat.original)
        return WriteOutput(seat.site.name, writing, seat.original)

    def take(self, seat: Any, reads: Sequence[ReadBank]) -> Sequence[Any]:
        """Keys and values of a site.

        Raises:
            TypeError: If there is no cross-attention to a reference.
        """
        if not isinstance(seat.module, ReferenceAttention):
            raise TypeError(f"{seat.site.name} has no ReferenceAttention beside it; link this UNet with Concat().")
        return super().take(seat, reads)

    def read(self, references: Sequence[ReferenceTokens], plan: RowPlan) -> ReadAlone:
        """Attention over all references together, and nothing else."""
        return ReadAlone(references, plan)

    def reader(self, site: Site) -> str:
        """The cross-attention, or what writes."""
        return site.beside or "attn1"


@dataclass
class WriteOutput:
    """Leave a self-attention's output (r, n, c), with its output projection, before the residual is added."""

    site: str
    writing: Writing
    original: Callable[..., Tensor]

    def __call__(self, attn: Attention, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Plain attention, whose output is kept."""
        output = self.original(attn, hidden_states, None, attention_mask)
        self.writing.bank.hidden[self.site] = output
        self.writing.done_at(self.site)
        return output


@dataclass
class WriteInput:
    """Leave a module's input (r, n, c)."""

    site: str
    writing: Writing

    def __call__(self, hidden_states: Tensor) -> None:
        """Keep it."""
        self.writing.bank.hidden[self.site] = hidden_states
        self.writing.done_at(self.site)


@dataclass
class ReadAlone:
    """Attend to references alone; rows that read nothing get zeros.

    Attributes:
        references: What each offers here.
        plan: Which rows read.
    """

    references: Sequence[ReferenceTokens]
    plan: RowPlan

    def __call__(self, attn: Attention, hidden_states: Tensor, _mask: Tensor | None) -> Tensor:
        """From (r, n, c) to the same shape."""
        rows = hidden_states.shape[0]
        frames = rows // self.plan.rows
        parts: list[Tensor] = []
        done = 0
        for section in self.plan.sections if self.references else ():
            start, stop = section.start * frames, section.stop * frames
            parts.append(torch.zeros_like(hidden_states[done:start]))
            parts.append(self._read(attn, hidden_states[start:stop], section))
            done = stop
        parts.append(torch.zeros_like(hidden_states[done:]))
        present = [part for part in parts if part.shape[0]]
        return present[0] if len(present) == 1 else torch.cat(present)

    def _read(self, attn: Attention, hidden_states: Tensor, section: Section) -> Tensor:
        """What the rows of a section get; those that share a bank row are attended as one long query."""
        query = split_heads(attn, attn.to_q(hidden_states))
        rows, heads, tokens, width = query.shape
        amount = section.amount * amount_at(self.references[0].amount, query).view(1, -1, 1)
        if section.reads_zeros:
            return amount * finish(attn, torch.zeros_like(query))
        bank = slice(section.bank_start, section.bank_stop)
        key = torch.cat([reference.key[bank] for reference in self.references], dim=2)
        value = torch.cat([reference.value[bank] for reference in self.references], dim=2)
        folded = query.transpose(1, 2).reshape(key.shape[0], -1, heads, width).transpose(1, 2)  # (b, h, r/b n, d)
        read = F.scaled_dot_product_attention(folded, key, value, attn_mask=self._bias(query))
        read = read.transpose(1, 2).reshape(rows, tokens, heads, width).transpose(1, 2)
        output = finish(attn, read)
        return output if section.amount == 1.0 and self.references[0].amount == 1.0 else amount * output

    def _bias(self, query: Tensor) -> Tensor | None:
        """How much each reference counts, (1, 1, 1, t); None: all alike.

        Raises:
            ValueError: If one of several is read in part: there are no own tokens that could take the rest.
        """
        if len(self.references) > 1 and any(reference.amount != 1.0 for reference in self.references):
            raise ValueError("of several references none can be read in part where they are read alone; weigh them.")
        if len({reference.log_weight for reference in self.references}) == 1:
            return None
        weights = [query.new_full((r.key.shape[2],), r.log_weight) for r in self.references]
        return torch.cat(weights).view(1, 1, 1, -1)
