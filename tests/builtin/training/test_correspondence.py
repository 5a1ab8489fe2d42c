"""Attention that is shown where to look: shares of parts, and a loss that falls where the right part is found."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from diffusers.models.attention_processor import Attention

from referencenet.builtin.training.base import figure_weight, make_unet
from referencenet.builtin.training.correspondence import (
    GROUPS,
    TOPICS,
    attention_inputs,
    caption_loss,
    pair_loss,
    part_shares,
    sheet_loss,
)
from referencenet.paperdoll.maps import PARTS

HAIR, SHOE, SHIRT, ARM = (PARTS.index(name) for name in ("hair", "left shoe", "upper garment", "left arm"))


def checkerboard(*rows: list[int]) -> torch.Tensor:
    """(1, 16, 16) parts: each number fills a square of 16 / len(rows) pixels."""
    side = 16 // len(rows)
    return torch.tensor(rows, dtype=torch.uint8).repeat_interleave(side, 0).repeat_interleave(side, 1)[None]


def test_shares_count_the_pixels_of_a_cell() -> None:
    shares = part_shares(checkerboard([HAIR, 0], [SHIRT, SHOE]), 1, 1)
    assert shares.shape == (1, 1, len(GROUPS))
    assert shares.sum() == 0.75  # the background belongs to no group
    assert shares.max() == 0.25


def test_every_part_but_the_background_has_one_group() -> None:
    named = [part for group in GROUPS for part in group]
    assert sorted(named) == sorted(PARTS[1:])


def test_figures_count_more_than_backgrounds() -> None:
    weight = figure_weight(checkerboard([HAIR, 0], [0, 0]), 2, 2)
    assert weight.flatten().tolist() == [3.0, 1.0, 1.0, 1.0]


def looking_at_itself(tokens: int) -> tuple[Attention, torch.Tensor]:
    """An attention that compares its inputs as they are, and one input per group of parts."""
    attn = Attention(query_dim=8, heads=1, dim_head=8)
    with torch.no_grad():
        for layer in (attn.to_q, attn.to_k):
            layer.weight.copy_(8.0 * torch.eye(8))
    return attn, torch.eye(8)[:tokens]


def test_loss_is_small_where_attention_finds_the_part() -> None:
    attn, codes = looking_at_itself(4)
    wanted, shown = checkerboard([HAIR, SHIRT], [SHOE, 0]), checkerboard([SHOE, HAIR], [0, SHIRT])
    queries = codes[[0, 1, 2, 3]][None]
    right, wrong = codes[[2, 0, 3, 1]][None], codes[[1, 2, 3, 0]][None]
    found = pair_loss({"a": (attn, queries)}, {"a": right}, wanted, shown)
    missed = pair_loss({"a": (attn, queries)}, {"a": wrong}, wanted, shown)
    assert found < 0.01
    assert missed > 5


def test_readers_of_one_reference_are_taken_together() -> None:
    attn, codes = looking_at_itself(4)
    first, second = checkerboard([HAIR, SHIRT], [SHOE, 0]), checkerboard([SHIRT, 0], [HAIR, SHOE])
    queries = torch.stack([codes[[0, 1, 2, 3]], codes[[1, 3, 0, 2]]])
    keys, shown = codes[[2, 0, 3, 1]][None], checkerboard([SHOE, HAIR], [0, SHIRT])
    assert pair_loss({"a": (attn, queries)}, {"a": keys}, torch.cat([first, second]), shown) < 0.01


@pytest.mark.parametrize("dim", [-1, -2])
def test_figures_of_a_sheet_look_at_each_other(dim: int) -> None:
    attn, codes = looking_at_itself(4)
    one, two = checkerboard([HAIR, SHIRT], [SHOE, 0]), checkerboard([SHOE, HAIR], [0, SHIRT])
    parts = torch.cat([one, two], dim=dim)
    tokens = torch.cat([codes[[0, 1, 2, 3]].view(2, 2, 8), codes[[2, 0, 3, 1]].view(2, 2, 8)], dim=dim - 1)
    hidden = tokens.flatten(0, 1)[None]
    assert sheet_loss({"a": (attn, hidden)}, parts, dim) < 0.01
    other = torch.cat([one, one.flip(2)], dim=dim)
    assert sheet_loss({"a": (attn, hidden)}, other, dim) > 1


def test_a_part_that_is_not_shown_is_not_asked_for() -> None:
    attn, codes = looking_at_itself(4)
    queries = codes[None].clone().requires_grad_()
    wanted, shown = checkerboard([HAIR, HAIR], [HAIR, 0]), checkerboard([SHOE, 0], [0, 0])
    pair_loss({"a": (attn, queries)}, {"a": codes[None]}, wanted, shown).backward()
    assert not queries.grad.any()


def test_queries_find_the_words_about_their_part() -> None:
    attn, codes = looking_at_itself(4)
    wanted = checkerboard([HAIR, SHIRT], [SHOE, 0])  # nothing is said of shoes
    topics = torch.tensor([[1 + [*TOPICS].index(name) for name in ("background", "upper", "hair")]])
    context, queries = codes[[3, 1, 0]][None], codes[None]
    assert caption_loss({"a": (attn, queries)}, context, wanted, topics) < 0.01
    assert caption_loss({"a": (attn, queries)}, context.flip(1), wanted, topics) > 1


def test_an_arm_finds_the_words_about_skin_and_pose() -> None:
    attn, codes = looking_at_itself(2)
    topics = torch.tensor([[1 + [*TOPICS].index(name) for name in ("skin", "pose")]])
    arm, queries = checkerboard([ARM]), (codes.sum(dim=0), codes[0])
    both, one = (float(caption_loss({"a": (attn, q[None, None])}, codes[None], arm, topics).detach()) for q in queries)
    assert both == pytest.approx(math.log(2), abs=0.01)
    assert one > 3


def test_what_is_not_told_is_not_asked_for() -> None:
    attn, codes = looking_at_itself(4)
    queries = codes[None].clone().requires_grad_()
    caption_loss({"a": (attn, queries)}, codes[None], checkerboard([HAIR, 0], [0, 0]), torch.zeros(1, 4)).backward()
    assert not queries.grad.any()


@pytest.mark.parametrize("which", ["attn1", "attn2"])
def test_inputs_are_kept_only_inside(which: Literal["attn1", "attn2"]) -> None:
    unet = make_unet()
    call = torch.zeros(1, 4, 16, 16), 5, torch.zeros(1, 3, 96)
    with attention_inputs(unet, which) as inputs:
        unet(*call)
    assert sorted(inputs) == sorted(name for name, _ in unet.named_modules() if name.endswith(which))
    assert {hidden.shape[1] for _, hidden in inputs.values()} == {64, 16, 4}
    inputs.clear()
    unet(*call)
    assert not inputs
