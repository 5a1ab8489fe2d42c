"""Shipped weights into the networks of published classes: by name and shape, with rules where these differ.

A tensor goes where its name is. Where the place is wider on its second axis, as a first convolution of more channels
or keys and values of a wider context, the first part is copied and the rest is zero: what is new is not heard yet. New
layers stay as they were built, but for those that end a new branch: they begin at zero, so that the network computes
what the shipped one does until it has learned more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WIDER = r"conv_in\.weight|.*\.attn2\.to_[kv]\.weight"
"""Places that may take more channels than the weights have."""

SILENT = (
    r".*motion_modules\.\d+\.proj_out\.(weight|bias)",
    r".*motion_modules\.\d+\.audio\.proj_out\.(weight|bias)",
    r".*\.attn2\.processor\.to_v_ip\.0\.weight",
    r".*\.attn1\.reference\.to_out\.0\.(weight|bias)",
    r"add_embedding\.linear_2\.(weight|bias)",
)
"""Last layers of new branches: motion modules, audio, an image prompt, a second self-attention, added conditions."""


@dataclass(frozen=True, kw_only=True)
class Graft:
    """What came of it.

    Attributes:
        new: Tensors that the weights did not fill, sorted.
        left: Weights that have no place, sorted.
    """

    new: tuple[str, ...]
    left: tuple[str, ...]


@torch.no_grad()
def graft(network: nn.Module, weights: Mapping[str, Tensor], silent: Iterable[str] = SILENT) -> Graft:
    """Fill a network.

    Args:
        network: As it was built; buffers that it computes itself, such as tables of positions, are left alone.
        weights: Of the shipped network, by name.
        silent: Regular expressions of new tensors that begin at zero.

    Raises:
        ValueError: If a tensor does not fit its place.
    """
    places = dict(network.named_parameters())
    for name in places.keys() & weights.keys():
        _fill(name, places[name], weights[name])
    new = sorted(places.keys() - weights.keys())
    for name in new:
        if any(re.fullmatch(pattern, name) for pattern in silent):
            places[name].zero_()
    return Graft(new=tuple(new), left=tuple(sorted(weights.keys() - places.keys())))


def with_second_attention(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in which second self-attentions begin as copies of the first, but for their last layer, which is new."""
    pattern = re.compile(r"((?:mid_block|up_blocks)\..*\.attn1\.)(to_[qkv]\.weight)")
    found = {name: pattern.fullmatch(name) for name in weights}
    return {**weights, **{f"{m[1]}reference.{m[2]}": weights[name] for name, m in found.items() if m}}


def with_reference_attention(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in which attention to a reference alone begins as the self-attention that read it beside its own tokens.

    That one softmax over both becomes two attentions, each of which begins with half of the output. What was there for
    words falls away.
    """
    block = re.compile(r"(.*\.transformer_blocks\.\d+\.)(attn|norm)2(\..*)")
    read = {name: block.sub(r"\g<1>\g<2>1\3", name) for name in weights}
    return {
        name: weights[source] * (0.5 if re.search(r"transformer_blocks\.\d+\.attn1\.to_out\.", source) else 1.0)
        for name, source in read.items()
    }


def _fill(name: str, place: Tensor, weight: Tensor) -> None:
    """Copy a tensor to its place."""
    if place.shape == weight.shape:
        place.copy_(weight)
        return
    same = place.ndim == weight.ndim and place.shape[:1] + place.shape[2:] == weight.shape[:1] + weight.shape[2:]
    if not (same and place.shape[1] > weight.shape[1] and re.fullmatch(WIDER, name)):
        raise ValueError(f"{name} is {tuple(place.shape)}, and its weights are {tuple(weight.shape)}: they do not fit.")
    place.zero_()
    place[:, : weight.shape[1]] = weight
