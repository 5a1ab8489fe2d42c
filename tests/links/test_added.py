"""The adding link against its equation: fidelity, several references, films, zeros; the rest is in the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models import arguments, model
from plain import softmax_attention
from referencenet import Added, ReferenceBank, attach
from referencenet.links import ReadBank, plan_rows
from referencenet.links.sites import MID_UP
from tiny import latents
from tolerances import ROUNDING, relative_error

SITE = "up_blocks.1.attentions.0.transformer_blocks.0.attn1"


def written(rows: int) -> ReferenceBank:
    """A bank of inputs for every site of the tiny UNet, with counts of tokens of its own."""
    with torch.no_grad(), attach(model("sd1"), [Added()]) as link:
        return link.write(**arguments("sd1", rows, 50, size=(4, 6)), projected=False)


def at_site(link: Added, reads: Any, rows: int, **how: Any) -> tuple[Any, Tensor, Tensor]:
    """The attention of one site, its input and its output while the UNet reads."""
    unet = model("sd1")
    seen: list[tuple[Tensor, Tensor]] = []
    attn = unet.get_submodule(SITE)
    attn.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    with attach(unet, [link]) as linked, linked.reading(reads, **how):
        unet(**arguments("sd1", rows, 10))
    return attn, *(tensor.detach() for tensor in seen[0])


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("fidelity", [1.0, 0.6, 0.0])
def test_plain_rows_take_a_share_of_their_partners_term(fidelity: float, differentiable: bool):
    bank = written(2)
    with torch.set_grad_enabled(differentiable):
        attn, own, ours = at_site(Added(fidelity=fidelity), bank, 4, plan=plan_rows([0, 1, 0, 1], [0, 0, 1, 1]))
    with torch.no_grad():
        term = softmax_attention(attn, own[2:], bank.hidden[SITE])
        expected = softmax_attention(attn, own, own) + torch.cat([(1 - fidelity) * term, term])
    assert relative_error(ours, expected) < ROUNDING


@torch.no_grad()
def test_rows_that_all_read_have_no_partners():
    bank = written(1)
    _, _, half = at_site(Added(fidelity=0.3), bank, 3, weights=[1.0] * 3)
    _, _, whole = at_site(Added(), bank, 3, weights=[1.0] * 3)
    assert torch.equal(half, whole)


@torch.no_grad()
def test_pictures_of_one_prompt_share_a_bank_row():
    bank = written(2)
    attn, own, ours = at_site(Added(fidelity=0.6), bank, 8, plan=plan_rows([0, 0, 1, 1] * 2, [0] * 4 + [1] * 4))
    term = softmax_attention(attn, own[4:], bank.hidden[SITE].repeat_interleave(2, 0))
    expected = softmax_attention(attn, own, own) + torch.cat([0.4 * term, term])
    assert relative_error(ours, expected) < ROUNDING


@torch.no_grad()
def test_each_reference_adds_a_term_and_a_weight_counts_it():
    banks = [written(1), written(1).map(lambda tensor: tensor.flip(1) + 1)]
    reads = [ReadBank(bank=banks[0], weight=2.0), ReadBank(bank=banks[1], strength=0.5)]
    attn, own, ours = at_site(Added(), reads, 2, weights=[1.0, 0.5])
    terms = [softmax_attention(attn, own, bank.hidden[SITE].expand(2, -1, -1)) for bank in banks]
    share = torch.tensor([1.0, 0.5]).view(-1, 1, 1)
    expected = softmax_attention(attn, own, own) + share * (2 * terms[0] + 0.5 * terms[1])
    assert relative_error(ours, expected) < ROUNDING


@torch.no_grad()
def test_a_row_that_reads_zeros_takes_the_bias_alone():
    attn, own, ours = at_site(Added(), written(1), 2, plan=plan_rows([0, 0], [1, 1], reads_zeros=[True, False]))
    expected = softmax_attention(attn, own[:1], own[:1]) + attn.to_out[0].bias
    assert relative_error(ours[:1], expected) < ROUNDING


@torch.no_grad()
def test_frames_of_a_plain_row_take_those_of_their_partner():
    unet, given = model("motion"), arguments("motion", 2, 10, frames=3)
    plan = plan_rows([0, 0], [0, 1])
    with attach(unet, [Added(fidelity=0.4)]) as link:
        bank = link.write(**arguments("motion", 1, 50), projected=False)
        seen: list[tuple[Tensor, Tensor]] = []
        unet.get_submodule(SITE).register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
        with link.reading(bank, plan=plan):
            unet(**given)
    attn, (own, ours) = unet.get_submodule(SITE), seen[0]
    term = softmax_attention(attn, own[3:], bank.hidden[SITE].expand(3, -1, -1))
    expected = softmax_attention(attn, own, own) + torch.cat([0.6 * term, term])
    assert relative_error(ours, expected) < ROUNDING


def test_midup_leaves_the_down_blocks_out():
    with attach(model("sd1"), [Added(stages=MID_UP)]) as link:
        assert {site.stage for site in link.sites} == {"mid_block", "up_blocks"}


def test_what_cannot_be_is_refused_before_anything_is_read():
    for fidelity in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="fidelity"), attach(model("sd1"), [Added(fidelity=fidelity)]):
            pass
    bank = ReferenceBank(hidden={name: latents(1, 1, 3, tensor.shape[2]) for name, tensor in written(1).hidden.items()})
    with attach(model("sd1"), [Added(fidelity=0.5)]) as link:
        with pytest.raises(ValueError, match="2 rows read nothing and 1 read"):
            with link.reading(bank, weights=[0, 0, 1.0]):
                pass
        with pytest.raises(TypeError, match="cannot share"), link.sharing(halves=1, weights=[1.0]):
            pass
