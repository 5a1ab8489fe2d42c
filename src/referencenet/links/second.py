"""The second-attention link: beside a self-attention another one with weights of its own, which alone reads.

FlashFace (arXiv 2403.17008, as published in code): with y the input of both, A1 the self-attention, A2 the second,

    x + A1(y, y) + s A2(y, [y; references]) + (1 - s) A2(y, y)

for a strength s per row, which may exceed 1. A2 does not vanish at s = 0: a row that reads nothing is the plain pass of
the network, whose self-attention is the sum of the two layers. So the link is the concatenating one, attached to A2
instead of A1; both of A2's terms share one projection and one attention over the own tokens.
Letters: r rows, n tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from diffusers.models.attention_processor import Attention as AttentionModule
from torch import Tensor, nn

from referencenet.links.concat import Read
from referencenet.links.kernel import ReferenceTokens
from referencenet.links.kind import Kind
from referencenet.links.rows import RowPlan
from referencenet.links.sites import Site, attention_sites

LAYER = "reference"
"""Name of the second layer inside its self-attention."""


@dataclass(frozen=True, kw_only=True)
class Second(Kind):
    """Read references in the second attention of every `AdditiveAttention` of the UNet."""

    rule: ClassVar[str] = "own attention + second attention over [own; reference]"

    def candidates(self, unet: nn.Module) -> list[Site]:
        """The sites with a second layer."""
        return second_sites(unet)

    def read(self, references: Sequence[ReferenceTokens], plan: RowPlan) -> Read:
        """The second layer attends to own and reference tokens."""
        return Read(references, plan)


class AdditiveAttention(AttentionModule):
    """Self-attention that is the sum of two layers: its own weights are the first, `reference` is the second.

    Args:
        settings: Those of diffusers' Attention, for both layers.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.reference = AttentionModule(**settings)

    @classmethod
    def like(cls, attn: AttentionModule) -> AdditiveAttention:
        """Two layers with the settings of a plain self-attention, freshly initialised."""
        return cls(
            query_dim=attn.query_dim,
            heads=attn.heads,
            dim_head=attn.inner_dim // attn.heads,
            dropout=attn.dropout,
            bias=attn.use_bias,
            upcast_attention=attn.upcast_attention,
            out_bias=attn.to_out[0].bias is not None,
        )

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:  # fmt: skip
        """(r, n, c) to (r, n, c): the sum of both layers."""
        first = super().forward(hidden_states, encoder_hidden_states, attention_mask, **kwargs)
        return first + self.reference(hidden_states, encoder_hidden_states, attention_mask, **kwargs)


def second_sites(unet: nn.Module) -> list[Site]:
    """The sites of a UNet that have a second layer, named like the self-attentions they stand beside.

    Raises:
        TypeError: If there are none.
    """
    sites = attention_sites(unet)
    found = [
        replace(site, layer=LAYER) for site in sites if isinstance(unet.get_submodule(site.name), AdditiveAttention)
    ]
    if not found:
        raise TypeError(
            f"{type(unet).__name__} has no second attention layer that a Second() link could use; give an "
            "AdditiveUNet, or link plain self-attention with Concat()."
        )
    return found
