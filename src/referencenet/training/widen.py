"""Growing a trained network wider without changing what it computes (Net2Net, Chen et al., 2016, section 2.2).

A grown channel becomes two copies that stand side by side, so that group norms keep their groups; whoever reads the
two takes a share of each. The shares are drawn apart, or the copies would learn the same for ever.
Two places are not the same afterwards, and left to further training. Where a layer reads two tensors joined together
(a UNet's skip connections) and only the second has grown, the groups of a norm fall otherwise. And a residual block
whose output is now as wide as its input has no convolution beside it any more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SPREAD = 0.5
"""Standard deviation of the shares' difference, in those of the weights."""


@torch.no_grad()
def widen(trained: nn.Module, wider: nn.Module, generator: torch.Generator) -> None:
    """Fill a network with the weights of a narrower one of the same layers.

    Args:
        trained: What is copied.
        wider: What is filled; every size of a parameter is the trained one or up to twice as large.
        generator: Of the differences between copies.

    Raises:
        ValueError: If the layers differ, a size fits no growing, or an attention would have to grow.
    """
    old, new = dict(trained.named_parameters()), dict(wider.named_parameters())
    differing = sorted(name for name in old.keys() ^ new.keys() if name in new or "conv_shortcut" not in name)
    if differing:
        raise ValueError(f"the networks differ in {', '.join(differing)}; expected the same layers, only wider.")
    for name, parameter in new.items():
        grown = old[name]
        for dim in range(min(grown.ndim, 2)):
            if grown.shape[dim] != parameter.shape[dim]:
                if ".attentions." in name:
                    raise ValueError(f"{name} is of an attention, which cannot grow: the scale of its scores would.")
                grown = _grow(grown, dim, parameter.shape[dim], name, generator)
        parameter.copy_(grown)


def _grow(weight: Tensor, dim: int, size: int, name: str, generator: torch.Generator) -> Tensor:
    """A parameter, grown along its outputs (dim 0) or inputs (dim 1)."""
    before = weight.shape[dim]
    if not before < size <= 2 * before:
        raise ValueError(f"{name} cannot grow from {before} to {size} channels; expected at most twice as many.")
    if dim == 1 and name.endswith("time_embedding.linear_1.weight"):
        return _spread_frequencies(weight, size)
    kept = 2 * before - size  # the first of two joined inputs, if there are two
    source = torch.cat([torch.arange(kept), torch.arange(kept, before).repeat_interleave(2)])
    grown = weight.index_select(dim, source.to(weight.device))
    if dim == 0:
        return grown
    grown[:, kept:] /= 2
    difference = torch.randn(grown[:, kept::2].shape, generator=generator).to(weight) * weight.std() * SPREAD
    grown[:, kept::2] += difference
    grown[:, kept + 1 :: 2] -= difference
    return grown


def _spread_frequencies(weight: Tensor, size: int) -> Tensor:
    """Inputs that are cosines and then sines of a timestep: twice as many frequencies, every second one an old one."""
    if size != 2 * weight.shape[1]:
        raise ValueError(f"{weight.shape[1]} sines and cosines cannot become {size}; expected twice as many.")
    grown = weight.new_zeros(weight.shape[0], size)
    grown[:, ::2] = weight
    return grown
