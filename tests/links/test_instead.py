"""The replacing link: attention to references alone, against plain attention, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from referencenet.links import Concat, Instead, ReadBank, ReferenceAttention, ReferenceBank, attach, is_linked
from referencenet.links.instead import ReadAlone
from referencenet.links.kernel import ReferenceTokens
from referencenet.links.rows import plan_rows
from referencenet.methods.tiny import tiny_pipeline
from tiny import fill, unet
from tolerances import ROUNDING, relative_error


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def attention() -> ReferenceAttention:
    with torch.random.fork_rng(devices=[]):
        return fill(ReferenceAttention(query_dim=8, heads=2, dim_head=4, cross_attention_dim=8), 1)  # pyright: ignore


def tokens(attn: Any, hidden: Tensor, log_weight: float = 0.0, amount: float = 1.0) -> ReferenceTokens:
    key, value = (layer(hidden).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (attn.to_k, attn.to_v))
    return ReferenceTokens(key, value, log_weight, amount)


@torch.no_grad()
def test_rows_read_as_plain_cross_attention_and_others_get_exactly_nothing() -> None:
    attn, hidden, reference = attention(), noise(6, 5, 8), noise(2, 7, 8)
    plan = plan_rows([0, 0, 1], [0.0, 1.0, 0.5])  # of two frames each
    ours = ReadAlone([tokens(attn, reference)], plan)(attn, hidden, None)
    assert not ours[:2].any()
    for rows, row, amount in ((slice(2, 4), 0, 1.0), (slice(4, 6), 1, 0.5)):
        plain = attn.forward(hidden[rows], reference[[row, row]])
        assert relative_error(ours[rows], amount * plain) < ROUNDING
    nothing = plan_rows([0, 1], [1.0, 1.0], reads_zeros=[True, True])
    zeros = ReadAlone([tokens(attn, reference)], nothing)(attn, hidden, None)
    assert relative_error(zeros, attn.to_out[0].bias.expand_as(hidden)) < ROUNDING


@torch.no_grad()
def test_several_references_are_one_sequence_in_which_each_may_count_more() -> None:
    attn, hidden, one, other = attention(), noise(1, 5, 8), noise(1, 7, 8), noise(1, 3, 8)
    plan = plan_rows([0], [1.0])
    ours = ReadAlone([tokens(attn, one), tokens(attn, other, math.log(2))], plan)(attn, hidden, None)
    assert relative_error(ours, attn.forward(hidden, torch.cat([one, other, other], dim=1))) < ROUNDING
    with pytest.raises(ValueError, match="read in part"):
        ReadAlone([tokens(attn, one), tokens(attn, other, amount=0.5)], plan)(attn, hidden, None)


def test_networks_of_another_kind_are_refused_and_left_as_they_were() -> None:
    pipe, plain = tiny_pipeline("emo"), unet()
    bank = ReferenceBank(hidden={name: noise(1, 4, 8) for name in names(plain)})
    with attach(plain, [Instead()]) as link, pytest.raises(TypeError, match=r"no ReferenceAttention.*Concat"):
        with link.reading(bank):
            pass
    with attach(pipe.unet, [Instead()]) as link, pytest.raises(TypeError, match="write with a UNet of its own"):
        link.write(noise(1, 4, 2, 4, 4), 1, encoder_hidden_states=None)
    with pytest.raises(ValueError, match="'mean'"), attach(plain, [Instead(feature="mean")]):  # pyright: ignore
        pass
    assert not is_linked(pipe.unet)
    assert not is_linked(plain)


def names(network: Any) -> list[str]:
    with attach(network, [Concat()]) as link:
        return [site.name for site in link.sites]


@torch.no_grad()
def test_a_saved_bank_reads_as_the_bank(tmp_path: Any) -> None:
    writer = tiny_pipeline("emo").reference_unet
    for feature in ("attn1_output", "attn1_residual"):
        with attach(writer, [Instead(feature=feature)]) as link:
            assert is_linked(writer)
            bank = link.write(noise(1, 4, 4, 4), 0, encoder_hidden_states=None)
        bank.save(tmp_path / "bank.safetensors")
        read = ReferenceBank.load(tmp_path / "bank.safetensors")
        assert all(torch.equal(read.hidden[site], x) for site, x in bank.hidden.items())
        assert ReadBank(bank=read).strength == 1
