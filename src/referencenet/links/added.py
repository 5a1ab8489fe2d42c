"""The adding link: beside attention to itself, a site attends to the reference, with the same weights.

StableGarment (arXiv 2403.10783, "additive self-attention", as published in code): with n the site's input and r what
was written,

    x + attn1(q = n, kv = n) + attn1(q = n, kv = r)

Both terms are whole calls of the layer with a softmax each, so the bias of its output projection counts twice. The
projection runs once, over their sum. Style fidelity f below 1: a row that reads nothing takes (1 - f) of its partner's
term, made by the partner's queries, not its own. Several references add a term each. Letters: r rows, h heads, n
tokens, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import ClassVar

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from referencenet.links.heads import finish, own_mask, query_key_value
from referencenet.links.kernel import ReferenceTokens, amount_at, attend, attend_reference
from referencenet.links.kind import Kind
from referencenet.links.rows import RowPlan, Section
from referencenet.links.sites import STAGES, Site, Stage


@dataclass(frozen=True, kw_only=True)
class Added(Kind):
    """Add attention to references to a self-attention, with its own weights.

    Attributes:
        stages: The parts of the UNet whose sites take part: `STAGES` for "full", `MID_UP` for "midup".
        fidelity: f in [0, 1]. Rows that read nothing take (1 - f) of the term of the row they are paired with: the
            first of them with the first that reads, and so on. Nothing at 1, and nothing where every row reads.
    """

    rule: ClassVar[str] = "own attention + attention over reference"

    stages: tuple[Stage, ...] = STAGES
    fidelity: float = 1.0

    def check(self) -> None:
        """The fidelity lies in [0, 1]."""
        if not 0.0 <= self.fidelity <= 1.0:
            raise ValueError(f"the fidelity of {self!r} must lie in [0, 1]: 1 keeps plain rows plain.")

    def check_plan(self, plan: RowPlan) -> None:
        """Plain rows that take a share have a partner each."""
        _partners(plan, self.fidelity)

    def chooses(self, site: Site) -> bool:
        """Whether a site takes part."""
        return site.stage in self.stages

    def read(self, references: Sequence[ReferenceTokens], plan: RowPlan) -> Add:
        """A term per reference is added."""
        return Add(references, plan, self.fidelity)


@dataclass
class Add:
    """Attend to self, and to every reference apart.

    Attributes:
        references: What each active reference offers here.
        plan: Which rows read.
        fidelity: As `Added` has it.
    """

    references: Sequence[ReferenceTokens]
    plan: RowPlan
    fidelity: float

    def __call__(self, attn: Attention, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The sum of the terms for (r, n, c)."""
        query, key, value = query_key_value(attn, hidden_states)
        mask = own_mask(attn, attention_mask, hidden_states)
        heads = attend(query, key, value, (), RowPlan(rows=self.plan.rows, sections=()), mask)  # (r, h, n, d)
        if not self.references or not self.plan.sections:
            return finish(attn, heads)
        heads = heads.clone() if torch.is_grad_enabled() else heads
        shares = heads.new_zeros(len(heads), 1, heads.shape[2], 1)  # of the bias, per row and token
        frames, partners = len(heads) // self.plan.rows, _partners(self.plan, self.fidelity)
        for section in self.plan.sections:
            rows = slice(section.start * frames, section.stop * frames)
            term, share = self._term(query[rows], section)
            heads[rows] += term
            shares[rows] += share
            for row in range(section.start, section.stop):
                if row in partners:
                    own = slice(partners[row] * frames, (partners[row] + 1) * frames)
                    there = slice((row - section.start) * frames, (row - section.start + 1) * frames)
                    heads[own] += (1 - self.fidelity) * term[there]
                    shares[own] += (1 - self.fidelity) * share
        bias = finish(attn, torch.zeros_like(heads[:1, :, :1]))  # (1, 1, c): what the layers add to nothing
        return finish(attn, heads) + shares.squeeze(1) * bias

    def _term(self, query: Tensor, section: Section) -> tuple[Tensor, Tensor]:
        """What the references add to a section's rows (s, h, n, d), and how often the bias counts in it, (1, n, 1)."""
        term, share = torch.zeros_like(query), query.new_zeros(1, query.shape[2], 1)
        for reference in self.references:
            amount = exp(reference.log_weight) * section.amount * amount_at(reference.amount, query).view(1, -1, 1)
            share = share + amount
            if not section.reads_zeros:
                term = term + amount * attend_reference(query, reference, section)
        return term, share


def _partners(plan: RowPlan, fidelity: float) -> dict[int, int]:
    """Reading row to the plain row that takes a share of its term."""
    reading = [row for section in plan.sections for row in range(section.start, section.stop)]
    plain = [row for row in range(plan.rows) if row not in reading]
    if fidelity == 1.0 or not plain or not reading:
        return {}
    if len(plain) != len(reading):
        raise ValueError(
            f"{len(plain)} rows read nothing and {len(reading)} read; with fidelity={fidelity} each of the former "
            "takes a share of one of the latter, so there must be as many."
        )
    return dict(zip(reading, plain, strict=True))
