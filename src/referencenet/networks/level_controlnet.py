"""A ControlNet of a UNet whose levels have unequally many layers.

diffusers' UNets take one number of layers for each level, its ControlNetModel one for all. Here it is built with the
most that a level has, and of each level what is too many is taken away, with the output layers that belong to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any

from diffusers import ControlNetModel, ModelMixin
from torch import nn


class LevelControlNet(ControlNetModel, ModelMixin):  # diffusers loads a component whose file names ModelMixin
    """ControlNetModel with `layers_per_block` as a number, or as one for each level.

    Its configuration is that of ControlNetModel.
    """

    @wraps(ControlNetModel.__init__)  # the configuration's names are read from the signature
    def __init__(self, *args: Any, layers_per_block: int | Sequence[int] = 2, **kwargs: Any) -> None:
        counts = [layers_per_block] if isinstance(layers_per_block, int) else list(layers_per_block)
        super().__init__(*args, layers_per_block=max(counts), **kwargs)
        if isinstance(layers_per_block, int):
            return
        if len(counts) != len(self.down_blocks):
            raise ValueError(f"layers_per_block is {counts} for {len(self.down_blocks)} levels; give one for each.")
        self.register_to_config(layers_per_block=tuple(counts))
        outputs = iter(self.controlnet_down_blocks)
        kept: list[nn.Module] = [next(outputs)]  # of the first convolution
        for block, count in zip(self.down_blocks, counts, strict=True):
            of_level = [next(outputs) for _ in range(max(counts))]
            kept += of_level[:count]
            kept += [next(outputs)] if block.downsamplers is not None else []
            for name in ("resnets", "attentions"):
                if hasattr(block, name):
                    setattr(block, name, getattr(block, name)[:count])
        self.controlnet_down_blocks = nn.ModuleList(kept)
