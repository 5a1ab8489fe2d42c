"""The published reading under guidance, against a plan that names the bank row of every frame."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention

from referencenet.links.concat import Concat, Read
from referencenet.links.kernel import ReferenceTokens
from referencenet.links.rows import RowPlan, plan_rows
from referencenet.links.tiled import Tiled
from tiny import fill
from tolerances import ROUNDING, relative_error

GENERATOR = torch.Generator().manual_seed(0)
ATTENTION = fill(Attention(query_dim=10, heads=2, dim_head=5), 3)


def references(rows: int) -> list[ReferenceTokens]:
    return [ReferenceTokens(*(torch.randn(rows, 2, 7, 5, generator=GENERATOR) for _ in range(2)))]


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("frames", [1, 3, 4])
@pytest.mark.parametrize("rows", [(0, 1), (0, 0)])
@pytest.mark.parametrize("differentiable", [False, True])
def test_frames_read_both_rows_in_turn(samples: int, frames: int, rows: tuple[int, int], differentiable: bool) -> None:
    given = references(2)
    hidden = torch.randn(2 * samples * frames, 3, 10, generator=GENERATOR, requires_grad=differentiable)
    plan = plan_rows([0] * samples + [1] * samples, [0.0] * samples + [1.0] * samples)
    # as published, of each film alone: row i of its batch of 2 f rows reads portrait i mod 2
    sources = [rows[i % 2] for i in range(2 * frames)]
    each = [sources[half * frames + frame] for half in (0, 1) for _ in range(samples) for frame in range(frames)]
    reads = [float(half) for half in (0, 1) for _ in range(samples * frames)]
    with torch.set_grad_enabled(differentiable):
        ours = Tiled(rows=rows).read(given, plan)(ATTENTION, hidden, None)
        expected = Read(given, plan_rows(each, reads))(ATTENTION, hidden, None)
    assert relative_error(ours.detach(), expected.detach()) < ROUNDING


def test_without_guidance_it_is_concat() -> None:
    given, plan = references(1), RowPlan(rows=1, sections=plan_rows([0], [1.0]).sections)
    hidden = torch.randn(4, 3, 10, generator=GENERATOR)
    with torch.no_grad():
        assert torch.equal(
            Tiled().read(given, plan)(ATTENTION, hidden, None), Concat().read(given, plan)(ATTENTION, hidden, None)
        )


@pytest.mark.parametrize("frames", [2, 4, 16])
def test_each_bank_row_is_attended_once_whatever_the_frames(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_rows([0, 1], [0.0, 1.0])
    sections: list[int] = []
    original = Read.__call__

    def counted(self: Read, *args: torch.Tensor) -> torch.Tensor:
        sections.append(len(self.plan.sections))
        return original(self, *args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Read, "__call__", counted)
    with torch.no_grad():
        Tiled().read(references(2), plan)(ATTENTION, torch.randn(2 * frames, 3, 10, generator=GENERATOR), None)
    assert sections == [1]  # two bank rows of as many readers each
