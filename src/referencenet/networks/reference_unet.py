"""The reference UNet: Stable Diffusion's UNet without an output head.

Of a reference net only the inputs of its self-attentions are used. The released reference nets of Animate Anyone and
its relatives therefore hold no `conv_norm_out` and `conv_out`; those of Parts2Whole, MagicAnimate and StableGarment
nothing at all behind the last self-attention's input (24 tensors fewer than Stable Diffusion 1.5). With the same layers
left out here, a file is loaded strictly.
"""

from __future__ import annotations

import inspect
from functools import wraps
from typing import Any

from diffusers import ModelMixin, UNet2DConditionModel
from torch import nn

from referencenet.links.sites import Site, attention_sites
from referencenet.networks.single_token import skip_single_tokens


class ReferenceUNet(UNet2DConditionModel, ModelMixin):  # diffusers loads a component whose file names ModelMixin
    """diffusers' UNet2DConditionModel whose output is what its last up block leaves: (batch, first width, h, w).

    Args:
        args: As UNet2DConditionModel.
        cut: Leave out every layer that runs after the last `norm1` of a self-attention. The UNet still runs to its end,
            but then gives what reached that place, not a prediction.
        kwargs: As UNet2DConditionModel.

    Raises:
        ValueError: If `cut` finds no self-attention in the up blocks.
    """

    @wraps(UNet2DConditionModel.__init__)
    def __init__(self, *args: Any, cut: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_to_config(cut=cut)
        self.conv_norm_out = None
        self.conv_out = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        skip_single_tokens(self)
        if cut:
            _cut_behind_last_norm(self)

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        """The configuration's keys: the wrapped signature, from which diffusers reads them, lacks ours."""
        return {*inspect.signature(input_class.__init__).parameters, "cut"}


def _cut_behind_last_norm(unet: UNet2DConditionModel) -> None:
    """Remove what runs after the last site's `norm1`; layers that a forward pass cannot skip become identities."""
    last = _last_site(unet)
    _, block_index, pair, layer = last.order
    block: Any = unet.up_blocks[block_index]
    transformer = block.attentions[pair]
    transformer.transformer_blocks = transformer.transformer_blocks[: layer + 1]
    transformer.proj_out = nn.Identity()
    final = transformer.transformer_blocks[layer]
    final.norm2 = final.attn2 = None
    final.norm3, final.ff = nn.Identity(), nn.Identity()
    attention = final.attn1
    attention.to_q, attention.to_k, attention.to_v = nn.Identity(), nn.Identity(), nn.Identity()
    attention.to_out = nn.ModuleList([nn.Identity(), nn.Identity()])
    block.attentions, block.resnets = block.attentions[: pair + 1], block.resnets[: pair + 1]
    block.upsamplers = None
    unet.up_blocks = unet.up_blocks[: block_index + 1]


def _last_site(unet: UNet2DConditionModel) -> Site:
    sites = sorted(attention_sites(unet), key=lambda site: site.order)
    if not sites or sites[-1].stage != "up_blocks":
        raise ValueError(
            f"cut=True needs a self-attention in the up blocks, behind which a reference UNet ends; up_block_types is "
            f"{unet.config['up_block_types']}. Give one of them cross-attention, or leave cut out."
        )
    return sites[-1]
