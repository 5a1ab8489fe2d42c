"""StyleAligned's link: the pictures of a batch attend to the first one, in its statistics.

Hertz et al. 2023 (arXiv 2312.02133, section 4.2). With Q, K, V of a picture and Q_r, K_r, V_r of the first picture of
its guidance half,

    attention(AdaIN(Q, Q_r), [K_r; AdaIN(K, K_r)], [V_r; V])     AdaIN(x, y) = std(y) (x - mean(x)) / std(x) + mean(y)

Mean and deviation are taken over tokens, channel by channel of each head. The first picture is left as it is: AdaIN
toward itself changes nothing, and its own tokens twice are its own tokens. Letters: r rows = halves x pictures (and
frames), h heads, n tokens, d head width, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from typing import ClassVar

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from referencenet.links.concat import Concat, Read
from referencenet.links.heads import finish, own_mask, query_key_value
from referencenet.links.kernel import ReferenceTokens, attend
from referencenet.links.rows import RowPlan, plan_rows

EPSILON = 1e-5  # of a variance, as in the published code; the paper states none


@dataclass(frozen=True, kw_only=True)
class Aligned(Concat):
    """Let the pictures of a batch attend to the first one; for `Link.sharing`.

    Attributes:
        attention: Whether the first picture's keys and values are attended to.
        adain_queries: Whether queries take the mean and deviation of the first picture's.
        adain_keys: Whether keys do.
        key_scale: Above 0: what the first picture's keys are multiplied with where others attend to them.
    """

    rule: ClassVar[str] = "attention over [own; first picture's], queries and keys in its statistics"

    attention: bool = True
    adain_queries: bool = True
    adain_keys: bool = True
    key_scale: float = 1.0

    def check(self) -> None:
        """Something is shared, and the scale is above 0."""
        super().check()
        if not (self.attention or self.adain_queries or self.adain_keys):
            raise ValueError(
                "attention, adain_queries and adain_keys are all off, so no attention shares anything; leave one on."
            )
        if not 0.0 < self.key_scale < inf:
            raise ValueError(f"key_scale is {self.key_scale}; expected a number above 0, 1 as published.")

    def read(self, references: Sequence[ReferenceTokens], plan: RowPlan) -> Read:
        """No bank is read."""
        raise TypeError(
            f"Aligned() reads the first picture of a batch and no bank ({len(references)} given, {plan!r:.80}); use "
            "Concat() for references."
        )

    def share(self, halves: int, weights: Sequence[float], weight: float) -> ReadFirst:
        """Every picture reads the first."""
        return ReadFirst(self, halves, weights, log(weight))


@dataclass
class ReadFirst:
    """What a self-attention computes while a batch is shared.

    Attributes:
        link: What is shared.
        halves: Guidance halves in the batch, each with a first picture of its own.
        weights: Per half how far outputs move from plain to reading, in [0, 1].
        log_weight: Added to the logits of the first picture's tokens.
    """

    link: Aligned
    halves: int
    weights: Sequence[float]
    log_weight: float = 0.0

    def __call__(self, attn: Attention, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Attention of (r, n, c)."""
        query, key, value = query_key_value(attn, hidden_states)
        mask = own_mask(attn, attention_mask, hidden_states)
        pictures = hidden_states.shape[0] // self.halves
        scale = self.link.key_scale
        first_key = key[::pictures] if scale == 1.0 else key[::pictures] * scale
        first = ReferenceTokens(key=first_key, value=value[::pictures], log_weight=self.log_weight)
        references = (first,) if self.link.attention else ()
        aligned_query = self._aligned(query) if self.link.adain_queries and pictures > 1 else query
        aligned_key = self._aligned(key) if self.link.adain_keys and pictures > 1 else key
        if aligned_query is query and aligned_key is key:
            return finish(attn, attend(query, key, value, references, self._plan(pictures, self.weights), mask))
        in_full = [float(weight > 0) for weight in self.weights]
        read = attend(aligned_query, aligned_key, value, references, self._plan(pictures, in_full), mask)
        if list(self.weights) != in_full:
            plain = attend(query, key, value, (), RowPlan(rows=self.halves * pictures, sections=()), mask)
            mixed = zip(plain.chunk(self.halves), read.chunk(self.halves), self.weights, strict=True)
            read = torch.cat([own.lerp(full, weight) for own, full, weight in mixed])
        return finish(attn, read)

    def _plan(self, pictures: int, weights: Sequence[float]) -> RowPlan:
        """Every picture but the first of a half reads that one."""
        if not self.link.attention:
            return RowPlan(rows=self.halves * pictures, sections=())
        sources = [half for half in range(self.halves) for _ in range(pictures)]
        amounts = [0.0 if i == 0 else weights[half] for half in range(self.halves) for i in range(pictures)]
        return plan_rows(sources, amounts)

    def _aligned(self, heads: Tensor) -> Tensor:
        """Queries or keys (r, h, n, d), those of pictures that read with the first picture's statistics."""
        parts: list[Tensor] = []
        for own, weight in zip(heads.chunk(self.halves), self.weights, strict=True):
            parts += [own[:1], in_statistics_of(own[1:], own[:1]) if weight > 0 else own[1:]]
        return torch.cat(parts)


def in_statistics_of(heads: Tensor, reference: Tensor) -> Tensor:
    """AdaIN over tokens: mean and deviation of each channel become those of the reference.

    Args:
        heads: (r, h, n, d).
        reference: (1, h, n, d).

    Returns:
        (r, h, n, d).
    """
    correction = min(1, heads.shape[-2] - 1)  # one token has no spread
    variance, mean = torch.var_mean(heads, dim=-2, correction=correction, keepdim=True)
    wanted_variance, wanted_mean = torch.var_mean(reference, dim=-2, correction=correction, keepdim=True)
    return (heads - mean) * ((wanted_variance + EPSILON) / (variance + EPSILON)).sqrt() + wanted_mean
