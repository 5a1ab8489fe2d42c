"""Teaching attention where to look: a query on somebody's hair should find the hair of the other picture.

A small model on a small computer finds out late, if at all, that another picture is worth reading, or which words of
a caption tell of which place. Paperdoll knows which part every pixel shows and what every word is about, so the way
can be shown: beside what the model draws, the share of attention that falls on the right part of the other picture, or
on the right words, is learned. Nothing of this remains in the weights' layout or in sampling.
Letters: b rows, n and m tokens, g groups of parts, t topics of words, c channels.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from math import isqrt
from typing import Literal

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from referencenet.links.heads import split_heads
from referencenet.paperdoll.maps import FACE, PARTS

GROUPS = (
    ("hair",),
    (*FACE, "right ear", "left ear", "neck"),
    ("hat",),
    ("upper garment",),
    ("lower garment",),
    ("right arm",),
    ("left arm",),
    ("right hand", "left hand"),
    ("right leg", "left leg"),
    ("right shoe", "left shoe"),
)
"""What counts as the same place of two figures; the background belongs to no group."""

_ARMS = ("right arm", "left arm", "right hand", "left hand")
_LEGS = ("right leg", "left leg", "right shoe", "left shoe")
TOPICS = {
    "pose": (*_ARMS, *_LEGS),
    "view": ("hair", *FACE),
    "background": ("background",),
    "expression": FACE,
    "skin": (*FACE, "right ear", "left ear", "neck", *_ARMS),
    "hair": ("hair",),
    "upper": ("upper garment",),
    "lower": ("lower garment", "right leg", "left leg"),
    "extra": ("hat", "beard", "glasses"),
}
"""Which parts the words about an aspect tell of; those about the shot tell of the whole picture, so of none."""

Inputs = dict[str, tuple[Attention, Tensor]]


def _membership(groups: Iterable[Sequence[str]]) -> Tensor:
    """(parts, groups), 1 where a part belongs to a group."""
    return torch.tensor([[float(part in group) for group in groups] for part in PARTS])


_PARTS_OF_GROUPS, PARTS_OF_TOPICS = _membership(GROUPS), _membership([*TOPICS.values()])


def part_shares(parts: Tensor, height: int, width: int, membership: Tensor = _PARTS_OF_GROUPS) -> Tensor:
    """How much of each cell shows which group of parts.

    Args:
        parts: (b, H, W) uint8, positions in `PARTS`; H and W multiples of height and width.
        height: Cells from top to bottom.
        width: Cells from left to right.
        membership: (parts, g), which part belongs to which group; by default to which of `GROUPS`.

    Returns:
        (b, height * width, g) in [0, 1].
    """
    shown = membership.to(parts.device)[parts.long()].permute(0, 3, 1, 2)  # (b, g, H, W)
    return F.adaptive_avg_pool2d(shown, (height, width)).flatten(2).transpose(1, 2)


@contextmanager
def attention_inputs(unet: nn.Module, which: Literal["attn1", "attn2"] = "attn1") -> Generator[Inputs]:
    """Inside, what asks in the attentions of a forward pass is kept: site name to (module, (b, n, c)).

    Args:
        unet: A diffusers UNet.
        which: Self-attentions, `attn1`, or those over the text, `attn2`.
    """
    inputs: Inputs = {}
    hooks = []
    for name, block in unet.named_modules():
        if isinstance(block, BasicTransformerBlock):
            site = f"{name}.{which}"

            def keep(module: Attention, given: tuple[Tensor, ...], site: str = site) -> None:
                inputs[site] = (module, given[0])

            hooks.append(block.get_submodule(which).register_forward_pre_hook(keep))
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def pair_loss(inputs: Inputs, written: dict[str, Tensor], wanted: Tensor, shown: Tensor) -> Tensor:
    """Of a UNet that reads a bank.

    Args:
        inputs: Of the reading pass, b rows; row i reads row i * r // b of what is written.
        written: Site name to the bank's hidden states, (r, m, c).
        wanted: (b, H, W) uint8, parts of what is drawn.
        shown: (r, H, W) uint8, parts of what is read.
    """
    losses: list[Tensor] = []
    sides = {site: isqrt(written[site].shape[1]) for site in inputs}
    shares = {side: (part_shares(wanted, side, side), part_shares(shown, side, side)) for side in {*sides.values()}}
    for site, (attn, queries) in inputs.items():
        keys = written[site]
        here, there = shares[sides[site]]
        here = here.reshape(len(keys), -1, there.shape[2])  # readers of one row together
        losses.append(_missed(attn, queries.reshape(len(keys), -1, queries.shape[2]), keys, here, there))
    return torch.stack(losses).mean()


def sheet_loss(inputs: Inputs, parts: Tensor, dim: int) -> Tensor:
    """Of a UNet that draws two figures in one picture, each of which should look at the other.

    Args:
        inputs: Of the pass.
        parts: (b, H, W) uint8 of the whole sheet.
        dim: Along which the two lie: -1 side by side, -2 one above the other.
    """
    losses: list[Tensor] = []
    for attn, hidden in inputs.values():
        scale = isqrt(parts.shape[1] * parts.shape[2] // hidden.shape[1])
        height, width = parts.shape[1] // scale, parts.shape[2] // scale
        first, second = (_half(hidden, height, width, dim, i) for i in range(2))
        shares = part_shares(parts, height, width)
        one, two = (_half(shares, height, width, dim, i) for i in range(2))
        queries, keys = torch.cat([first, second]), torch.cat([second, first])
        losses.append(_missed(attn, queries, keys, torch.cat([one, two]), torch.cat([two, one])))
    return torch.stack(losses).mean()


def caption_loss(inputs: Inputs, context: Tensor, parts: Tensor, topics: Tensor) -> Tensor:
    """Of a UNet that is told what to draw: a query on hair should find the words about hair.

    Where words about several topics tell of a place, as those about skin and pose of an arm, it should find all.

    Args:
        inputs: Of the pass, from `attention_inputs(unet, "attn2")`.
        context: (b, m, c) of the text encoder.
        parts: (b, H, H) uint8, parts of what is drawn.
        topics: (b, m) int, 0 or the position in `TOPICS`, from 1 on, of what a token is about.
    """
    losses: list[Tensor] = []
    said = F.one_hot(topics.long(), 1 + len(TOPICS))[..., 1:].float()  # (b, m, t)
    sides = {site: isqrt(queries.shape[1]) for site, (_, queries) in inputs.items()}
    asked = {side: part_shares(parts, side, side, PARTS_OF_TOPICS) for side in {*sides.values()}}  # (b, n, t) each
    for site, (attn, queries) in inputs.items():
        right = _attended(attn, queries, context) @ said  # (b, n, t)
        wanted = asked[sides[site]] * said.amax(dim=1, keepdim=True)
        losses.append(-(wanted * (right + 1e-3).log()).sum() / wanted.sum().clamp_min(1.0))
    return torch.stack(losses).mean()


def _half(tokens: Tensor, height: int, width: int, dim: int, which: int) -> Tensor:
    """One half, (b, n / 2, c), of a sheet's tokens (b, n, c)."""
    return tokens.unflatten(1, (height, width)).chunk(2, dim=dim - 1)[which].flatten(1, 2)


def _missed(attn: Attention, queries: Tensor, keys: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """Mean -log of the attention's share on tokens of the query's own group, over queries whose group is there.

    Args:
        attn: The attention.
        queries: (b, n, c) inputs.
        keys: (b, m, c) inputs.
        here: (b, n, g) shares of the queries' cells.
        there: (b, m, g) of the keys'.
    """
    right = torch.einsum("bnm,bmg,bng->bn", _attended(attn, queries, keys), there, here)
    counts = (here * (there.amax(dim=1, keepdim=True) > 0.3)).sum(dim=2)  # (b, n)
    return -(counts * (right + 1e-3).log()).sum() / counts.sum().clamp_min(1.0)


def _attended(attn: Attention, queries: Tensor, keys: Tensor) -> Tensor:
    """How much of each query's attention falls on each key, mean over heads: (b, n, m) of (b, n, c) and (b, m, d)."""
    query, key = split_heads(attn, attn.to_q(queries)), split_heads(attn, attn.to_k(keys))  # (b, heads, tokens, d)
    return (query @ key.transpose(2, 3) * attn.scale).float().softmax(dim=3).mean(dim=1)
