"""A Stable Diffusion UNet whose middle and up blocks have a second self-attention, as FlashFace's denoiser has.

Everything but `attn1` of those blocks is diffusers' own. Run plainly it is the network without references; an
`Second` link makes the second layers read them. The down blocks have none: no reference reaches them.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from referencenet.links.second import AdditiveAttention


class AdditiveUNet(UNet2DConditionModel, ModelMixin):  # diffusers loads a component whose file names ModelMixin
    """UNet2DConditionModel with an `AdditiveAttention` in every transformer block of its middle and up blocks.

    Its configuration is that of UNet2DConditionModel.
    """

    @wraps(UNet2DConditionModel.__init__)  # the configuration's names are read from the signature
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for stage in (self.mid_block, self.up_blocks):
            for block in stage.modules() if isinstance(stage, nn.Module) else ():
                if isinstance(block, BasicTransformerBlock):
                    block.attn1 = AdditiveAttention.like(block.attn1)
