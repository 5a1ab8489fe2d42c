"""From banks to what a site reads: keys and values of the tokens that may be read, and how much each counts.

A bank of inputs is projected with the reader's weights, by calling its layers. Letters: b bank rows, n tokens, c
channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log

import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from referencenet.links.bank import ReferenceBank
from referencenet.links.heads import project, split_heads
from referencenet.links.kernel import Amount, ReferenceTokens
from referencenet.links.masks import Pyramid
from referencenet.links.offloading import compute_dtype
from referencenet.links.rows import RowPlan, plan_rows

MERGING = "ToMeBlock"
"""Name of the class that tomesd gives the blocks whose tokens it merges."""


@dataclass(frozen=True, kw_only=True)
class ReadBank:
    """A bank and how it is read.

    Attributes:
        bank: What was written, b rows.
        strength: In [0, 1]: how far outputs move from plain to reading.
        weight: Above 0: how many times the reference counts beside the own tokens and other references.
        readable: Mask of the reference's own pixels; None: all.
        visible: Mask of the result where it is read; None: everywhere.
    """

    bank: ReferenceBank
    strength: float = 1.0
    weight: float = 1.0
    readable: Pyramid | None = None
    visible: Pyramid | None = None


Banks = ReferenceBank | ReadBank | Sequence[ReferenceBank | ReadBank]
"""What `Link.reading` takes: one or several."""


def as_reads(banks: Banks) -> list[ReadBank]:
    """Every bank with how it is read; one alone is read in full."""
    given = [banks] if isinstance(banks, ReferenceBank | ReadBank) else banks
    return [bank if isinstance(bank, ReadBank) else ReadBank(bank=bank) for bank in given]


def weighed(joined: ReferenceBank, weights: Sequence[float]) -> list[ReadBank]:
    """References of one size that were joined to one sequence, each counting a number of times.

    Args:
        joined: One row of self-attention inputs, (1, references n, c).
        weights: One for each reference, above 0.

    Returns:
        What is read: references of one weight together.

    Raises:
        ValueError: If a weight is not above 0, or the sequence cannot be of so many references.
    """
    tokens = {x.shape[1] for x in joined.hidden.values()}
    if not weights or not all(0 < weight < inf for weight in weights) or any(n % len(weights) for n in tokens):
        raise ValueError(
            f"the references' weights are {list(weights)} for sequences of {sorted(tokens)} tokens; expected one above "
            "0 for each reference."
        )
    kinds = dict.fromkeys(weights)
    if len(kinds) == 1:
        return [ReadBank(bank=joined, weight=weights[0])]
    found: list[ReadBank] = []
    for kind in kinds:
        rows = [i for i, weight in enumerate(weights) if weight == kind]
        parts = {site: x.unflatten(1, (len(weights), -1))[:, rows] for site, x in joined.hidden.items()}
        hidden = {site: part.flatten(1, 2) for site, part in parts.items()}  # (1, rows n, c)
        found.append(ReadBank(bank=ReferenceBank(hidden=hidden), weight=kind))
    return found


def check_masks(unet: nn.Module, reads: Sequence[ReadBank]) -> None:
    """Refuse masks where tokens are no places: merging (tomesd) may leave as many as another level has.

    Raises:
        ValueError: If there is a mask, and the UNet merges tokens.
    """
    if all(read.readable is None and read.visible is None for read in reads):
        return
    merging = [name for name, module in unet.named_modules() if type(module).__name__ == MERGING]
    if merging:
        raise ValueError(
            f"tokens are merged inside of {merging[0]} and {len(merging) - 1} more blocks (tomesd), and no mask can be "
            "laid over merged tokens: undo it with tomesd.remove_patch, or read without masks."
        )


def plan_over(reads: Sequence[ReadBank], weights: Sequence[float] | None) -> RowPlan:
    """The plan of a reading batch whose rows are evenly spread over the banks'.

    Raises:
        ValueError: If there is no bank, the banks differ in rows, or the rows cannot be spread.
    """
    bank_rows = {read.bank.rows for read in reads}
    if len(bank_rows) != 1:
        raise ValueError(
            f"the banks have {sorted(bank_rows)} rows; expected at least one bank, all of one number of rows."
        )
    rows = bank_rows.pop()
    weights = [1.0] * rows if weights is None else weights
    if not weights or len(weights) % rows:
        raise ValueError(f"{len(weights)} reading rows cannot be spread over a bank of {rows}; give a multiple.")
    return plan_rows([i * rows // len(weights) for i in range(len(weights))], weights)


def tokens_at(attn: Attention, name: str, reads: Sequence[ReadBank]) -> list[ReferenceTokens]:
    """What all banks offer at one attention site; a reference whose mask leaves no token there is left out."""
    tokens = [_tokens(attn, name, read) for read in reads]
    return [each for each in tokens if each.key.shape[2]]


def _tokens(attn: Attention, name: str, read: ReadBank) -> ReferenceTokens:
    """A bank's keys and values at one site, of the tokens that may be read."""
    if name in read.bank.projected:
        key, value = read.bank.projected[name]
    else:
        hidden, dtype = read.bank.hidden[name], compute_dtype(attn.to_k)
        key, value = project(attn, hidden if dtype is None else hidden.to(dtype))
    if read.readable is not None:
        keep = read.readable.tokens(key.shape[1]) >= 0.5
        index = torch.nonzero(keep).flatten().to(key.device)
        key, value = key.index_select(1, index), value.index_select(1, index)
    amount: Amount = read.strength
    if read.visible is not None:
        amount = {level.numel(): level.flatten().to(key.device) * read.strength for level in read.visible.maps.values()}
    return ReferenceTokens(split_heads(attn, key), split_heads(attn, value), log(read.weight), amount)
