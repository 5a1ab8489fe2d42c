"""Image prompts with attention of their own beside the text's, after IP-Adapter (Ye et al. 2023, arXiv 2308.06721).

Answers to IP-Adapter Plus for SDXL as IDM-VTON uses it: the resampler turns CLIP states into a few tokens, once per
picture; in every cross-attention of the UNet these tokens have keys and values of their own, and the two attentions
are added. diffusers would project the picture again at every step; here the tokens go in ready, beside the text.
"""

from __future__ import annotations

from functools import wraps
from typing import Any, cast

from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention as AttentionModule
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from torch import Tensor


class ImagePromptResampler(IPAdapterPlusImageProjection, ModelMixin, ConfigMixin):
    """CLIP states of a picture (batch, tokens, embed_dims) to an image prompt (batch, num_queries, output_dims).

    Args:
        embed_dims: Channels of the CLIP states.
        output_dims: Channels of the UNet's cross-attention context.
        hidden_dims: Channels of the latent queries.
        depth: Number of layers.
        dim_head: Channels of a head.
        heads: Number of heads.
        num_queries: Tokens that come out.
        ffn_ratio: Width of the feed-forward layer over hidden_dims.
    """

    @register_to_config
    def __init__(
        self,
        embed_dims: int = 1280,  # the defaults are those of ip-adapter-plus_sdxl_vit-h
        output_dims: int = 2048,
        hidden_dims: int = 1280,
        depth: int = 4,
        dim_head: int = 64,
        heads: int = 20,
        num_queries: int = 16,
        ffn_ratio: float = 4,
    ) -> None:
        super().__init__(embed_dims, output_dims, hidden_dims, depth, dim_head, heads, num_queries, ffn_ratio)


class ImagePromptUNet(UNet2DConditionModel):
    """A UNet2DConditionModel whose every cross-attention also reads an image prompt.

    Its `encoder_hidden_states` is what `with_image_prompt` makes of the text's and the picture's tokens.
    """

    @wraps(UNet2DConditionModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, module in self.named_modules():
            if name.endswith(".attn2"):
                attention = cast(AttentionModule, module)
                attention.set_processor(
                    IPAdapterAttnProcessor2_0(  # pyright: ignore[reportArgumentType] - one of diffusers' own
                        hidden_size=attention.inner_dim,
                        cross_attention_dim=attention.cross_attention_dim,
                        num_tokens=(1,),
                    )
                )


def with_image_prompt(text: Tensor, picture: Tensor) -> Any:
    """Both contexts as an ImagePromptUNet takes them.

    Args:
        text: (batch, text tokens, channels).
        picture: (batch, image tokens, channels), from the resampler.

    Raises:
        ValueError: If batch or channels differ.
    """
    if (text.shape[0], text.shape[2]) != (picture.shape[0], picture.shape[2]):
        raise ValueError(
            f"the text's tokens are {tuple(text.shape)} and the picture's {tuple(picture.shape)}; batch and channels "
            "must agree: give one image prompt per text prompt."
        )
    return text, [picture]
