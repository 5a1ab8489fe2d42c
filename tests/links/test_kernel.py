"""The kernel's two ways (merged by log-sum-exp, concatenated for autograd) against a softmax spelled out."""

from __future__ import annotations

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from referencenet.links import RowPlan, plan_rows
from referencenet.links.kernel import ReferenceTokens, attend
from tiny import latents
from tolerances import DOUBLE, ROUNDING, relative_error


def spelled_out(query: Tensor, key: Tensor, value: Tensor, references: list[ReferenceTokens], sources: list[int],
                weights: list[float]) -> Tensor:  # fmt: skip
    """Row by row; amounts between 0 and 1 by the mean over levels that the kernel documents."""
    frames = query.shape[0] // len(sources)
    rows = []
    for row in range(query.shape[0]):
        source, weight = sources[row // frames], weights[row // frames]
        plain = softmax(query[row], key[row], value[row])
        amounts = sorted({0.0, *(float(r.amount) for r in references), 1.0})  # pyright: ignore[reportArgumentType]
        mixed = torch.zeros_like(plain)
        for low, high in zip(amounts, amounts[1:], strict=False):
            present = [r for r in references if r.amount >= high]  # pyright: ignore[reportOperatorIssue]
            keys = torch.cat([key[row], *(r.key[source] for r in present)], dim=1)
            values = torch.cat([value[row], *(r.value[source] for r in present)], dim=1)
            bias = torch.cat([key.new_zeros(key.shape[2])] + [
                key.new_full((r.key.shape[2],), r.log_weight) for r in present
            ])  # fmt: skip
            mixed = mixed + (high - low) * softmax(query[row], keys, values, bias)
        rows.append(plain + weight * (mixed - plain))
    return torch.stack(rows)


def softmax(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention of one row: (h, n, d)."""
    logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return (logits if bias is None else logits + bias).softmax(-1) @ value


def make(
    rows: int, heads: int, tokens: int, width: int, dtype: torch.dtype, *references: tuple[int, int, float, float]
):
    """Query, key, value and references, each given as (bank rows, tokens, weight, amount)."""
    own = [latents(seed, rows, heads, tokens, width).to(dtype) for seed in (1, 2, 3)]
    read = [
        ReferenceTokens(
            latents(10 + i, bank, heads, count, width).to(dtype),
            latents(20 + i, bank, heads, count, width).to(dtype),
            log(weight),
            amount,
        )
        for i, (bank, count, weight, amount) in enumerate(references)
    ]
    return own[0], own[1], own[2], read


shapes = st.sampled_from([2, 3, 5])
number = st.sampled_from([0.25, 0.5, 1.0])


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=4),
    st.integers(1, 3),
    shapes,
    shapes,
    st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([0.5, 1.0, 2.0]), number), min_size=1, max_size=3),
    st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_attend_is_softmax_over_the_union(
    rows: list[tuple[int, float]],
    frames: int,
    heads: int,
    tokens: int,
    given_references: list[tuple[int, float, float]],
    differentiable: bool,
):
    sources, weights = [source for source, _ in rows], [weight for _, weight in rows]
    described = [(2, count, weight, amount) for count, weight, amount in given_references]
    query, key, value, references = make(len(rows) * frames, heads, tokens, 4, torch.float64, *described)
    expected = spelled_out(query, key, value, references, sources, weights)
    query.requires_grad_(differentiable)
    ours = attend(query, key, value, references, plan_rows(sources, weights))
    assert ours.requires_grad == differentiable
    assert relative_error(ours.detach(), expected) < DOUBLE


@pytest.mark.parametrize("differentiable", [False, True])
def test_an_amount_may_differ_from_token_to_token(differentiable: bool):
    query, key, value, references = make(2, 3, 5, 4, torch.float64, (1, 7, 1.0, 1.0), (1, 3, 2.0, 1.0))
    maps = [torch.tensor([0.0, 0.25, 0.5, 1.0, 1.0]), torch.tensor([1.0, 0.5, 0.5, 0.0, 1.0])]
    mapped = [ReferenceTokens(r.key, r.value, r.log_weight, {5: m}) for r, m in zip(references, maps, strict=True)]
    query.requires_grad_(differentiable)
    ours = attend(query, key, value, mapped, plan_rows([0, 0], [1.0, 1.0])).detach()
    for token in range(5):
        numbers = [
            ReferenceTokens(r.key, r.value, r.log_weight, float(m[token]))
            for r, m in zip(references, maps, strict=True)
        ]
        one = slice(token, token + 1)
        expected = spelled_out(query.detach()[:, :, one], key, value, numbers, [0, 0], [1.0, 1.0])
        assert relative_error(ours[:, :, one], expected) < DOUBLE


def test_a_mask_of_the_own_tokens_is_kept():
    query, key, value, references = make(2, 3, 5, 4, torch.float64, (1, 7, 1.0, 1.0))
    allowed = torch.tensor([True, True, False, True, False])
    ours = attend(query, key, value, references, plan_rows([0, 0], [0.0, 1.0]), allowed.expand(2, 1, 5, 5))
    expected = spelled_out(query, key[:, :, allowed], value[:, :, allowed], references, [0, 0], [0.0, 1.0])
    assert relative_error(ours, expected) < DOUBLE


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_large_logits_neither_overflow_nor_lose_the_reference(scale: float):
    query, key, value, references = make(2, 2, 5, 4, torch.float32, (1, 3, 1.0, 1.0))
    ours = attend(query * scale, key, value, references, plan_rows([0, 0], [1.0, 1.0]))
    single = [ReferenceTokens(r.key.double(), r.value.double(), r.log_weight, r.amount) for r in references]
    expected = spelled_out(query.double() * scale, key.double(), value.double(), single, [0, 0], [1.0, 1.0])
    assert relative_error(ours, expected.float()) < 50 * ROUNDING


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_type_stays(dtype: torch.dtype):
    query, key, value, references = make(2, 2, 5, 4, dtype, (1, 3, 1.0, 1.0))
    assert attend(query, key, value, references, plan_rows([0, 0], [0.5, 1.0])).dtype == dtype


def test_the_callers_tensors_stay_as_they_were():
    query, key, value, references = make(2, 2, 5, 4, torch.float32, (1, 3, 1.0, 1.0), (1, 5, 1.0, 0.5))
    given_tensors = [query, key, value, *(r.key for r in references), *(r.value for r in references)]
    before = [tensor.clone() for tensor in given_tensors]
    attend(query, key, value, references, plan_rows([0, 0], [0.5, 1.0]))
    assert all(map(torch.equal, given_tensors, before))


def test_without_sections_or_references_it_is_plain_attention():
    query, key, value, references = make(3, 2, 5, 4, torch.float64, (1, 3, 1.0, 1.0))
    plain = torch.stack([softmax(query[row], key[row], value[row]) for row in range(3)])
    assert relative_error(attend(query, key, value, references, RowPlan(rows=3, sections=())), plain) < DOUBLE


def test_gradients_agree_with_finite_differences():
    query, key, value, references = make(2, 1, 3, 2, torch.float64, (1, 2, 2.0, 0.5))
    inputs = [t.requires_grad_() for t in (query, key, value, references[0].key, references[0].value)]

    def run(q: Tensor, k: Tensor, v: Tensor, rk: Tensor, rv: Tensor) -> Tensor:
        return attend(q, k, v, [ReferenceTokens(rk, rv, log(2.0), 0.5)], plan_rows([0, 0], [0.5, 1.0]))

    assert torch.autograd.gradcheck(run, inputs)
