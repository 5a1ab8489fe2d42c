"""Attention over [self; references], and parts of the way there, with nothing computed twice.

Softmax attention over a union of key sets is a mean of the attentions over each set, weighted by exp(log-sum-exp). So
one attention over the own tokens and one over each reference give plain attention, attention over the union and every
mixture between them; a reference shared by many rows is attended once with all their queries behind each other. N
tokens with keys and values of zero are one output of zero with log-sum-exp log N, and cost nothing. Where the kernel
gives no log-sum-exp (or a gradient through it is needed) the same result comes from SDPA over concatenated keys.
Approximations have no place here. Letters: r rows, h heads, n tokens, t reference tokens, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from referencenet.links.masks import wrong_count
from referencenet.links.rows import RowPlan, Section

Amount = float | dict[int, Tensor]
"""How much is read: a number, or by number of reader tokens n a map (n,)."""


@dataclass(frozen=True)
class ReferenceTokens:
    """One reference at one attention site.

    Attributes:
        key: (b, h, t, d), b bank rows.
        value: (b, h, t, d).
        log_weight: Added to the reference's logits; log 2 counts it twice.
        amount: How much it is read, in [0, 1].
    """

    key: Tensor
    value: Tensor
    log_weight: float = 0.0
    amount: Amount = 1.0


def attend(query: Tensor, key: Tensor, value: Tensor, references: Sequence[ReferenceTokens], plan: RowPlan,
           attention_mask: Tensor | None = None) -> Tensor:  # fmt: skip
    """Self-attention that also reads references.

    Args:
        query: (r, h, n, d).
        key: (r, h, n, d), the reader's own.
        value: (r, h, n, d).
        references: What is read; every one has the bank rows that `plan` names.
        plan: Which rows read which bank row and how much; r is a multiple of its rows (frames).
        attention_mask: Of the own tokens, as SDPA takes it.

    Returns:
        (r, h, n, d).
    """
    tensors = [query, key, value, *(r.key for r in references), *(r.value for r in references)]
    differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if differentiable or attention_mask is not None or not _has_logsumexp(query):
        return _attend_concatenated(query, key, value, references, plan, attention_mask)
    return _attend_merged(query, key, value, references, plan)


def _attend_merged(
    query: Tensor, key: Tensor, value: Tensor, references: Sequence[ReferenceTokens], plan: RowPlan
) -> Tensor:
    """One attention per key set; the sets are merged by their log-sum-exp, in place of the own output."""
    own, own_lse = _attention_logsumexp(query, key, value)
    own, own_lse = own.transpose(1, 2), own_lse.transpose(1, 2)  # (r, n, h, d), (r, n, h)
    frames = query.shape[0] // plan.rows
    for section in plan.sections:
        rows = slice(section.start * frames, section.stop * frames)
        read: list[Tensor] = []
        read_lse: list[Tensor] = []
        for reference in references:
            if section.reads_zeros:
                output, lse = _attend_zeros(own[rows], own_lse[rows], reference.key.shape[2])
            else:
                output, lse = _attend_folded(query[rows], reference, section)
            read.append(output)
            read_lse.append(lse + reference.log_weight)
        _merge_into(
            own[rows],
            own_lse[rows],
            read,
            read_lse,
            [_per_token(r.amount, query.shape[2]) for r in references],
            section.amount,
        )
    return own.transpose(1, 2)


def _attend_folded(query: Tensor, reference: ReferenceTokens, section: Section) -> tuple[Tensor, Tensor]:
    """Attention of many rows to few: rows that share a bank row form one long query.

    Returns:
        Output (r, n, h, d) and log-sum-exp (r, n, h) of the section's rows.
    """
    rows, heads, tokens, width = query.shape
    key = reference.key[section.bank_start : section.bank_stop]
    value = reference.value[section.bank_start : section.bank_stop]
    folded = query.transpose(1, 2).reshape(key.shape[0], -1, heads, width).transpose(1, 2)  # (b, h, r/b n, d)
    output, lse = _attention_logsumexp(folded, key, value)
    return output.transpose(1, 2).reshape(rows, tokens, heads, width), lse.transpose(1, 2).reshape(rows, tokens, heads)


def _attend_zeros(own: Tensor, own_lse: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Attention to `count` tokens of zero: every logit is 0 and so is every value.

    Returns:
        Output and log-sum-exp like the own ones, (r, n, h, d) and (r, n, h), without storage of their own.
    """
    return own.new_zeros(()).expand_as(own), own_lse.new_full((), log(count)).expand_as(own_lse)


def attend_reference(query: Tensor, reference: ReferenceTokens, section: Section) -> Tensor:
    """Attention of a section's rows to a reference alone, differentiable and on every backend.

    Args:
        query: (s, h, n, d), the section's rows (with their frames).
        reference: What they attend to.
        section: Which bank rows it is of.

    Returns:
        (s, h, n, d).
    """
    rows, heads, tokens, width = query.shape
    key, value = (x[section.bank_start : section.bank_stop] for x in (reference.key, reference.value))
    folded = query.transpose(1, 2).reshape(key.shape[0], -1, heads, width).transpose(1, 2)  # (b, h, s/b n, d)
    output = F.scaled_dot_product_attention(folded, key, value)
    return output.transpose(1, 2).reshape(rows, tokens, heads, width).transpose(1, 2)


def _merge_into(
    own: Tensor,
    own_lse: Tensor,
    read: list[Tensor],
    read_lse: list[Tensor],
    amounts: list[float | Tensor],
    amount: float,
) -> None:
    """Move the own output (r, n, h, d) toward the union with the references, each by its amount."""
    if len(read) == 1:
        share = torch.sigmoid(read_lse[0] - own_lse) * (amounts[0] * amount)
        own.lerp_(read[0], share.unsqueeze(-1).to(own.dtype))
        return
    shares = _layered_shares(own_lse, torch.stack(read_lse), amounts) * amount
    own.mul_((1 - shares.sum(0)).unsqueeze(-1).to(own.dtype))
    for share, output in zip(shares, read, strict=True):
        own.addcmul_(share.unsqueeze(-1).to(own.dtype), output)


def _layered_shares(own_lse: Tensor, read_lse: Tensor, amounts: list[float | Tensor]) -> Tensor:
    """Each reference's share of the output when their amounts differ.

    The output is the mean over levels u in [0, 1] of the attention over the own tokens and the references whose amount
    is above u: exact at 0 and 1, linear for one reference, and blind to the references' order.

    Args:
        own_lse: (r, n, h).
        read_lse: (references, r, n, h).
        amounts: Per reference a number or (n, 1).

    Returns:
        (references, r, n, h); what is missing to 1 belongs to the own tokens.
    """
    template = own_lse[:1, :, :1].unsqueeze(0)  # (1, 1, n, 1)
    amount = torch.cat([template.new_zeros(template.shape) + a for a in amounts])  # (references, 1, n, 1)
    shares = torch.zeros_like(read_lse)
    previous = torch.zeros_like(amount[0])
    for level in amount.sort(dim=0).values:
        present = amount >= level
        visible = read_lse.masked_fill(~present, -torch.inf)
        total = torch.logaddexp(own_lse, torch.logsumexp(visible, dim=0))
        shares = shares + (level - previous) * torch.exp(visible - total)
        previous = level
    return shares


def _per_token(amount: Amount, tokens: int) -> float | Tensor:
    """An amount that broadcasts over (r, n, h)."""
    return _level_of(amount, tokens).unsqueeze(-1) if isinstance(amount, dict) else amount


def _attend_concatenated(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    references: Sequence[ReferenceTokens],
    plan: RowPlan,
    attention_mask: Tensor | None,
) -> Tensor:
    """The same through SDPA alone: differentiable, for every backend."""
    frames = query.shape[0] // plan.rows
    outputs: list[Tensor] = []
    done = 0
    for section in plan.sections:
        start, stop = section.start * frames, section.stop * frames
        outputs.append(_plain(query, key, value, attention_mask, done, start))
        outputs.append(_read_concatenated(query, key, value, references, section, start, stop, attention_mask))
        done = stop
    outputs.append(_plain(query, key, value, attention_mask, done, query.shape[0]))
    present = [part for part in outputs if part.shape[0]]
    return present[0] if len(present) == 1 else torch.cat(present)


def _plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, start: int, stop: int) -> Tensor:
    """Plain attention of the rows [start, stop)."""
    if start == stop:
        return query[start:stop]
    mask = mask if mask is None or mask.shape[0] == 1 else mask[start:stop]
    return F.scaled_dot_product_attention(query[start:stop], key[start:stop], value[start:stop], attn_mask=mask)


def _read_concatenated(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    references: Sequence[ReferenceTokens],
    section: Section,
    start: int,
    stop: int,
    attention_mask: Tensor | None,
) -> Tensor:
    """The rows [start, stop) of a section over [self; references]."""
    if section.reads_zeros:
        references = [_one_zero_token(reference) for reference in references]
    readers = (stop - start) // (section.bank_stop - section.bank_start)
    bank = slice(section.bank_start, section.bank_stop)
    keys = torch.cat([key[start:stop], *(r.key[bank].repeat_interleave(readers, dim=0) for r in references)], dim=2)
    values = torch.cat(
        [value[start:stop], *(r.value[bank].repeat_interleave(readers, dim=0) for r in references)], dim=2
    )
    own_mask = attention_mask if attention_mask is None or attention_mask.shape[0] == 1 else attention_mask[start:stop]
    if own_mask is None and all(_is_published(reference) for reference in references):
        read = F.scaled_dot_product_attention(query[start:stop], keys, values)
    else:
        read = _read_levels(query[start:stop], keys, values, references, own_mask)
        left = 1 - torch.stack([amount_at(r.amount, query) for r in references]).amax(dim=0)  # (n,)
        read = read + left.view(-1, 1) * _plain(query, key, value, attention_mask, start, stop)
    if section.amount == 1.0:
        return read
    return _plain(query, key, value, attention_mask, start, stop).lerp(read, section.amount)


def _read_levels(
    query: Tensor, keys: Tensor, values: Tensor, references: Sequence[ReferenceTokens], own_mask: Tensor | None
) -> Tensor:
    """The mean over levels of `_layered_shares`, one masked attention per level, less the part of no reference."""
    tokens = query.shape[2]
    own_bias = query.new_zeros(1, 1, tokens, tokens)
    if own_mask is not None:
        own_bias = own_bias + (
            own_mask
            if own_mask.is_floating_point()
            else torch.zeros_like(own_mask, dtype=query.dtype).masked_fill(~own_mask, -torch.inf)
        )
    amounts = torch.stack([amount_at(reference.amount, query) for reference in references])  # (references, n)
    read = torch.zeros_like(query)
    previous = torch.zeros_like(amounts[0])
    for level in amounts.sort(dim=0).values:
        biases = [own_bias]
        for reference, amount in zip(references, amounts, strict=True):
            bias = query.new_full((tokens,), reference.log_weight).masked_fill(amount < level, -torch.inf)
            bias = bias.view(1, 1, tokens, 1)
            biases.append(bias.expand(*own_bias.shape[:2], -1, reference.key.shape[2]))
        union = F.scaled_dot_product_attention(query, keys, values, attn_mask=torch.cat(biases, dim=-1))
        read = read + (level - previous).view(-1, 1) * union
        previous = level
    return read


def _one_zero_token(reference: ReferenceTokens) -> ReferenceTokens:
    """One token in the place of a reference's t tokens of zero, counted t times."""
    zero = torch.zeros_like(reference.key[:, :, :1])  # (b, h, 1, d)
    return ReferenceTokens(zero, zero, reference.log_weight + log(reference.key.shape[2]), reference.amount)


def _is_published(reference: ReferenceTokens) -> bool:
    """Whether the reference is read in full by every token."""
    return reference.amount == 1.0 and reference.log_weight == 0.0


def amount_at(amount: Amount, query: Tensor) -> Tensor:
    """The amount per token of the reader, (n,)."""
    tokens = query.shape[2]
    if isinstance(amount, dict):
        return _level_of(amount, tokens).to(query)
    return query.new_full((tokens,), amount)


def _level_of(amount: dict[int, Tensor], tokens: int) -> Tensor:
    """The map for a number of tokens.

    Raises:
        ValueError: If there is none.
    """
    if tokens not in amount:
        raise ValueError(wrong_count(tokens, amount))
    return amount[tokens]


def _has_logsumexp(query: Tensor) -> bool:
    """Whether this device's attention kernel also returns the log-sum-exp."""
    return query.device.type in ("cpu", "cuda")


def _attention_logsumexp(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attention (r, h, n, d) and its log-sum-exp (r, h, n) from the device's own kernel."""
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
    if query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] <= 256 and query.shape[-1] % 8 == 0:
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[:2]
    else:
        output, lse = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[:2]
    return output, lse[:, :, : query.shape[2]]  # kernels may pad the log-sum-exp
