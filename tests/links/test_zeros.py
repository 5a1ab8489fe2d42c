"""Rows that read zeros: what the unconditional half of IDM-VTON sees. The plain way concatenates the zeros."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models import arguments, model
from referencenet import AdaIN, Concat, attach
from referencenet.links import Section, plan_rows
from referencenet.links.kernel import ReferenceTokens, attend
from tolerances import DOUBLE, ROUNDING, relative_error

SIZES = st.integers(1, 5)


def plain(query: Tensor, key: Tensor, value: Tensor, reads: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    """Softmax over own keys and every (keys, values, count) read, written out: (h, n, d)."""
    keys = torch.cat([key, *(k for k, _, _ in reads)], dim=1)
    values = torch.cat([value, *(v for _, v, _ in reads)], dim=1)
    counts = torch.cat([query.new_ones(key.shape[1]), *(query.new_full((k.shape[1],), c) for k, _, c in reads)])
    weights = (query @ keys.transpose(1, 2) / query.shape[-1] ** 0.5).exp() * counts
    return weights / weights.sum(-1, keepdim=True) @ values


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("with_gradient", [False, True], ids=["merged", "concatenated"])
@settings(max_examples=25, deadline=None)
@given(pictures=SIZES, heads=SIZES, tokens=SIZES, count=SIZES, width=SIZES, amount=st.sampled_from([0.25, 1.0]))
def test_zeros_count_in_the_softmax(
    with_gradient: bool, pictures: int, heads: int, tokens: int, count: int, width: int, amount: float
) -> None:
    """The guidance batch of a system whose unconditional half reads zeros: [zeros, bank]."""
    query, key, value = (draw(seed, 2 * pictures, heads, tokens, width) for seed in range(3))
    first = ReferenceTokens(*(draw(seed, pictures, heads, count, width) for seed in (3, 4)))
    rows, half = list(range(pictures)), [True] * pictures + [False] * pictures
    plan = plan_rows(rows + rows, [amount] * 2 * pictures, reads_zeros=half)
    ours = attend(query.requires_grad_(with_gradient), key, value, [first], plan)
    for row in range(2 * pictures):
        k, v = first.key[row % pictures], first.value[row % pictures]
        read = (torch.zeros_like(k), torch.zeros_like(v), 1.0) if half[row] else (k, v, 1.0)
        own = plain(query[row], key[row], value[row], [])
        expected = own.lerp(plain(query[row], key[row], value[row], [read]), amount)
        assert relative_error(ours[row].detach(), expected.detach()) < DOUBLE


@pytest.mark.parametrize("with_gradient", [False, True], ids=["merged", "concatenated"])
def test_zeros_of_several_references_count_by_their_weights(with_gradient: bool) -> None:
    query, key, value = (draw(seed, 1, 2, 5, 3) for seed in range(3))
    references = [
        ReferenceTokens(*(draw(seed, 1, 2, count, 3) for seed in (3, 4)), log_weight=log_weight)
        for count, log_weight in ((4, 0.7), (6, -0.3))
    ]
    plan = plan_rows([0], [1.0], reads_zeros=[True])
    ours = attend(query.requires_grad_(with_gradient), key, value, references, plan)
    zeros = [(torch.zeros_like(r.key[0]), torch.zeros_like(r.value[0]), r.log_weight) for r in references]
    reads = [(k, v, float(torch.tensor(w, dtype=torch.float64).exp())) for k, v, w in zeros]
    assert relative_error(ours[0].detach(), plain(query[0], key[0], value[0], reads).detach()) < DOUBLE


def test_gradient_flows_past_zeros() -> None:
    query, key, value = (draw(seed, 2, 1, 3, 2).requires_grad_() for seed in range(3))
    bank = [draw(seed, 1, 1, 4, 2).requires_grad_() for seed in (3, 4)]
    plan = plan_rows([0, 0], [1.0, 1.0], reads_zeros=[True, False])
    weights = draw(5, 2, 1, 3, 2)
    (attend(query, key, value, [ReferenceTokens(*bank)], plan) * weights).sum().backward()
    found = [tensor.grad for tensor in (query, key, value, *bank)]
    for tensor in (query, key, value, *bank):
        tensor.grad = None
    zero = torch.zeros_like(bank[0][0])
    rows = [plain(query[0], key[0], value[0], [(zero, zero, 1.0)])]
    rows += [plain(query[1], key[1], value[1], [(bank[0][0], bank[1][0], 1.0)])]
    (torch.stack(rows) * weights).sum().backward()
    for ours, tensor in zip(found, (query, key, value, *bank), strict=True):
        assert ours is not None
        assert tensor.grad is not None
        assert relative_error(ours, tensor.grad) < DOUBLE


def test_rows_are_folded_by_what_they_read() -> None:
    plan = plan_rows([0, 1, 0, 1], [1.0] * 4, reads_zeros=[True, True, False, False])
    assert plan.sections == (Section(0, 2, 0, 2, 1.0, True), Section(2, 4, 0, 2, 1.0, False))


def test_a_zero_row_reads_what_a_bank_of_zeros_gives() -> None:
    """Through a whole UNet: the first row reads zeros, as if its bank were zeros at every site."""
    unet = model("sd1")
    given = arguments("sd1", rows=2)
    with torch.no_grad(), attach(unet, [Concat()]) as link:
        bank = link.write(**arguments("sd1", rows=1, seed=3), projected=False)
        with link.reading(bank, plan=plan_rows([0, 0], [1.0, 1.0], reads_zeros=[True, False])):
            ours = unet(**given, return_dict=False)[0]
        with link.reading(bank.map(torch.zeros_like), plan=plan_rows([0, 0], [1.0, 1.0])):
            zeros = unet(**given, return_dict=False)[0]
        with link.reading(bank, plan=plan_rows([0, 0], [1.0, 1.0])):
            reading = unet(**given, return_dict=False)[0]
        plain_output = unet(**given, return_dict=False)[0]
    assert relative_error(ours[0], zeros[0]) < ROUNDING
    assert relative_error(ours[1], reading[1]) < ROUNDING
    assert relative_error(ours[0], plain_output[0]) > 1e-3


def test_adain_refuses_zeros() -> None:
    unet = model("sd1")
    with torch.no_grad(), attach(unet, [AdaIN()]) as link:
        bank = link.write(**arguments("sd1", rows=1))
        with (
            pytest.raises(ValueError, match="AdaIN cannot read zeros"),
            link.reading(bank, plan=plan_rows([0], [1.0], reads_zeros=[True])),
        ):
            pass


def test_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 bank rows were named for 2 weights and 1 rows"):
        plan_rows([0, 0], [1.0, 1.0], reads_zeros=[True])
