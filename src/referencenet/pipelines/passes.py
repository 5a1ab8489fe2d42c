"""Passes of guidance: what each one reads of the reference, which conditions it does not see, and how they add up.

This is the only place where guidance has halves (or thirds), and `reading_plan` the only one where they become rows
of a batch. Rows are pass by pass: row = pass * samples + sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from referencenet.links.rows import RowPlan, plan_rows

Reads = Literal["reference", "blank", "zeros"]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass of guidance.

    Attributes:
        factor: In the guided sum; the factors of a step add up to 1.
        reads: "reference"; "blank": the bank of a zero latent; "zeros": keys and values of zero, which count in the
            softmax; None: nothing.
        strength: How much it reads; 1 in full.
        blind: Names of the conditions that it does not see.
    """

    factor: float
    reads: Reads | None = "reference"
    strength: float = 1.0
    blind: frozenset[str] = frozenset()


class Guidance:
    """Which passes a step has, and how they add up; a system with a form of its own inherits from it."""

    def passes(self, timestep: float, scale: float) -> list[Pass]:
        """The passes of a step, at the denoiser's timestep and the call's guidance scale."""
        raise NotImplementedError

    def combine(self, passes: Sequence[Pass], parts: Sequence[Tensor], rescale: float = 0.0) -> Tensor:
        """The guided prediction.

        Args:
            passes: Of the step.
            parts: What the denoiser predicted in each, (b, c, ...).
            rescale: phi of Lin et al. 2023 (arXiv 2305.08891, section 3.4), toward the last pass's deviation; 0: none.
        """
        guided = sum((p.factor * part for p, part in zip(passes, parts, strict=True)), torch.zeros_like(parts[0]))
        return rescale_noise_cfg(guided, parts[-1], rescale) if rescale else guided

    def is_guided(self, scale: float) -> bool:
        """Whether steps have more than one pass at a scale."""
        return scale > 1

    @property
    def reads_blank(self) -> bool:
        """Whether some pass reads the bank of a zero latent."""
        return False


@dataclass(frozen=True, kw_only=True)
class TwoWay(Guidance):
    """Classifier-free guidance (Ho and Salimans 2022): u + s (c - u).

    Attributes:
        reads: What the unconditional pass u reads.
        blind: Conditions that u does not see.
    """

    reads: Reads | None = None
    blind: tuple[str, ...] = ()

    def passes(self, timestep: float, scale: float) -> list[Pass]:  # noqa: ARG002 - others depend on it
        """The unconditional pass first; without guidance one pass."""
        if not self.is_guided(scale):
            return [Pass(factor=1.0)]
        return [Pass(factor=1 - scale, reads=self.reads, blind=frozenset(self.blind)), Pass(factor=scale)]

    def combine(self, passes: Sequence[Pass], parts: Sequence[Tensor], rescale: float = 0.0) -> Tensor:
        """As published: u + s (c - u), parts (b, c, ...)."""
        if len(parts) == 1:
            return parts[0]
        unconditional, conditional = parts
        guided = unconditional + passes[1].factor * (conditional - unconditional)
        return rescale_noise_cfg(guided, conditional, rescale) if rescale else guided

    @property
    def reads_blank(self) -> bool:
        """Whether the unconditional pass reads the bank of a zero latent."""
        return self.reads == "blank"


@dataclass(frozen=True, kw_only=True)
class Unread(Guidance):
    """The passes of another guidance, none of which reads: the link cut, for measurements.

    Attributes:
        guidance: Whose passes they are.
    """

    guidance: Guidance

    def passes(self, timestep: float, scale: float) -> list[Pass]:
        """The same passes, of which every one reads nothing."""
        return [replace(each, reads=None) for each in self.guidance.passes(timestep, scale)]

    def combine(self, passes: Sequence[Pass], parts: Sequence[Tensor], rescale: float = 0.0) -> Tensor:
        """As the other guidance does."""
        return self.guidance.combine(passes, parts, rescale)

    def is_guided(self, scale: float) -> bool:
        """As of the other guidance."""
        return self.guidance.is_guided(scale)

    @property
    def reads_blank(self) -> bool:
        """As of the other guidance: the bank has the rows that it would have."""
        return self.guidance.reads_blank


def reading_plan(passes: Sequence[Pass], samples: int, bank_rows: int, *, has_blank: bool = False) -> RowPlan:
    """Which row of the reading batch reads which row of the bank.

    Args:
        passes: Of the step.
        samples: b, pictures or films of the call.
        bank_rows: Rows of the bank; b must be a multiple of its references.
        has_blank: Whether the first half of the bank's rows are those of zero latents.

    Raises:
        ValueError: If the references cannot serve the samples evenly.
    """
    first = bank_rows // 2 if has_blank else 0
    references = bank_rows - first
    if samples % references:
        raise ValueError(f"{references} references cannot serve {samples} results; give one for all, or one for each.")
    own = [first + i * references // samples for i in range(samples)]
    sources = [row - first if p.reads == "blank" else row for p in passes for row in own]
    weights = [0.0 if p.reads is None else p.strength for p in passes for _ in own]
    zeros = [p.reads == "zeros" for p in passes for _ in own]
    return plan_rows(sources, weights, reads_zeros=zeros)
