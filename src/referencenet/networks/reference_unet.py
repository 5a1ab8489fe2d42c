"""The reference UNet: Stable Diffusion's UNet without an output head, or without anything behind its last site.

Of a reference net only the inputs of its self-attentions are used. The released reference nets of Animate Anyone and
its relatives therefore hold no `conv_norm_out` and `conv_out`, those of MagicAnimate and its relatives moreover nothing
behind the first norm of the last transformer block (24 tensors less than Stable Diffusion's). With that left out, a
file is loaded strictly.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from diffusers import ModelMixin, UNet2DConditionModel
from torch import nn

from referencenet.networks.single_token import skip_single_tokens


class ReferenceUNet(UNet2DConditionModel, ModelMixin):  # diffusers loads a component whose file names ModelMixin
    """diffusers' UNet2DConditionModel whose output is what its last up block leaves: (batch, first width, h, w)."""

    @wraps(UNet2DConditionModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv_norm_out = None
        self.conv_out = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        skip_single_tokens(self)


class CutReferenceUNet(ReferenceUNet):
    """A reference UNet that ends at the last site: nothing behind `norm1` of its last transformer block has weights.

    Its output is of no use; it is there to be written from.
    """

    @wraps(UNet2DConditionModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        last: Any = self.up_blocks[-1]
        transformer = last.attentions[-1]
        block = transformer.transformer_blocks[-1]
        for name in ("to_q", "to_k", "to_v"):
            setattr(block.attn1, name, nn.Identity())
        block.attn1.to_out = nn.ModuleList([nn.Identity(), nn.Identity()])
        block.norm2 = block.attn2 = None
        block.norm3, block.ff, transformer.proj_out = nn.Identity(), nn.Identity(), nn.Identity()
