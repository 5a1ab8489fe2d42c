"""Growing a trained UNet deeper without changing what it computes (Net2Net, Chen et al., 2016, section 2.3).

A new residual block passes on what it is given: the second of its convolutions is zero, and of a skip connection it
takes nothing. Downwards the new blocks of a level come last, upwards they stand behind its first.
"""

from __future__ import annotations

import copy

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import nn


@torch.no_grad()
def deepen(trained: UNet2DConditionModel, deeper: UNet2DConditionModel) -> None:
    """Fill a UNet with the weights of one that has fewer residual blocks in levels without attention.

    Args:
        trained: What is copied.
        deeper: What is filled; the first convolutions of its new blocks stay as they are.

    Raises:
        ValueError: If the networks differ in anything else.
    """
    grown = copy.deepcopy(trained)
    levels = [*zip(grown.down_blocks, deeper.down_blocks, strict=False)]
    levels += zip(grown.up_blocks, deeper.up_blocks, strict=False)
    for number, (old, new) in enumerate(levels):
        before = len(old.resnets)
        first = before if number < len(deeper.down_blocks) else 1
        for place in range(first, first + len(new.resnets) - before):
            old.resnets.insert(place, _passing_on(new.resnets[place]))
    shapes, wanted = ({n: tuple(p.shape) for n, p in net.named_parameters()} for net in (grown, deeper))
    if differing := sorted(name for name in shapes | wanted if shapes.get(name) != wanted.get(name)):
        raise ValueError(
            f"the networks differ in {len(differing)} weights, the first of which is {differing[0]}; expected the same "
            "blocks, only more residual blocks in levels without attention."
        )
    deeper.load_state_dict(grown.state_dict())


def _passing_on(block: ResnetBlock2D) -> ResnetBlock2D:
    """The block, giving back as many of its first channels as it has outputs."""
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    if block.conv_shortcut is not None:
        nn.init.dirac_(block.conv_shortcut.weight)
        nn.init.zeros_(block.conv_shortcut.bias)
    return block
