"""A Stable Diffusion UNet that is told no words: its cross-attentions give their input back.

As CatVTON's: what a transformer block adds where its cross-attention was is its normalised input, norm2(h), not zero.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn


class GivesInputBack(nn.Module):
    """Stands in a cross-attention's place."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """(rows, tokens, channels), as they came."""
        return hidden_states


class ContextFreeUNet(UNet2DConditionModel, ModelMixin):  # diffusers loads a component whose file names ModelMixin
    """diffusers' UNet2DConditionModel without the weights of its cross-attentions; `encoder_hidden_states` is None.

    Its configuration is that of UNet2DConditionModel.
    """

    @wraps(UNet2DConditionModel.__init__)  # the configuration's names are read from the signature
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for block in [module for module in self.modules() if isinstance(module, BasicTransformerBlock)]:
            block.attn2 = GivesInputBack()
