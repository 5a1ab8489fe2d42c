"""Image prompts with attention of their own beside the text's, after IP-Adapter (Ye et al. 2023, arXiv 2308.06721).

Answers to IP-Adapter Plus for SDXL as IDM-VTON uses it: the resampler turns CLIP states into a few tokens, once per
picture; in every cross-attention of the UNet these tokens have keys and values of their own, and the two attentions
are added. diffusers keeps those weights in attention processors, so that whoever exchanges processors (slicing, fused
projections, xFormers) loses them; here they are the attention layer's own, and any processor computes both attentions.
Letters: r rows, n and t tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from torch import Tensor, nn

Projection = Callable[[Tensor], Tensor]


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


class ImagePromptProjections(nn.Module):
    """Keys and values of an image prompt.

    Args:
        channels: Of the context.
        width: Of keys and values.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.to_k_ip = nn.ModuleList([nn.Linear(channels, width, bias=False)])
        self.to_v_ip = nn.ModuleList([nn.Linear(channels, width, bias=False)])


class ImagePromptAttention(Attention):
    """Cross-attention to a text, plus cross-attention of the same queries to an image prompt.

    Processors are set and got as on every attention of diffusers, but are kept as `computing`: `processor` is where
    published files and saved folders have the image prompt's weights, and nobody exchanges those.

    Args:
        args: As diffusers' Attention.
        kwargs: As diffusers' Attention.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.processor = ImagePromptProjections(self.cross_attention_dim, self.inner_kv_dim)

    def set_processor(self, processor: Any) -> None:
        """Let both attentions be computed by a processor.

        Raises:
            ValueError: If it has weights of its own, such as another IP-Adapter's.
        """
        if isinstance(processor, nn.Module):
            raise ValueError(
                f"{type(processor).__name__} has weights of its own, and this UNet's image prompt has its weights "
                "already; give a processor without weights, such as AttnProcessor2_0()."
            )
        self.computing = processor

    def get_processor(self, return_deprecated_lora: bool = False) -> Any:  # noqa: ARG002 - as diffusers calls it
        """The processor that computes both attentions."""
        return self.computing

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Tensor | None = None,
        **cross_attention_kwargs: Any,
    ) -> Tensor:
        """(r, n, c) to the same.

        Args:
            hidden_states: Who asks, (r, n, c).
            encoder_hidden_states: As `with_image_prompt` gives them.
            attention_mask: Of the text's tokens, (r, 1, t).
            cross_attention_kwargs: For the processor.

        Raises:
            ValueError: If there is no image prompt in the context.
        """
        if not isinstance(encoder_hidden_states, tuple):
            raise ValueError(
                f"the context is a {type(encoder_hidden_states).__name__}, but this UNet reads an image prompt beside "
                "the text: give encoder_hidden_states=with_image_prompt(text, picture)."
            )
        text, (picture,) = encoder_hidden_states
        query, (to_k,), (to_v,) = self.to_q(hidden_states), self.processor.to_k_ip, self.processor.to_v_ip
        options: dict[str, Any] = {}
        if cross_attention_kwargs:  # those of other layers' processors come along
            known = signature(self.computing.__call__).parameters
            options = {name: value for name, value in cross_attention_kwargs.items() if name in known}
        read = self.computing(
            Heads(self, query), hidden_states, encoder_hidden_states=text, attention_mask=attention_mask, **options
        )
        read = read + self.computing(Heads(self, query, to_k, to_v), hidden_states, encoder_hidden_states=picture)
        for layer in self.to_out:
            read = layer(read)
        return read


class Heads:
    """An attention layer as its processor sees it, from ready queries to the heads' results: nothing is projected out.

    Args:
        attention: The layer.
        query: Ready, (r, n, c).
        to_k: Its keys; None: the layer's own.
        to_v: Its values; None: the layer's own.
    """

    def __init__(
        self, attention: ImagePromptAttention, query: Tensor, to_k: Projection | None = None, to_v: Any = None
    ) -> None:
        self.attention, self.query = attention, query
        self.to_out = (_as_it_is, _as_it_is)
        if to_k is not None:
            self.to_k, self.to_v = to_k, to_v
            self.to_kv = self._both

    def __getattr__(self, name: str) -> Any:
        """Everything else is the layer's."""
        return getattr(self.attention, name)

    def to_q(self, _hidden_states: Tensor) -> Tensor:
        """The queries (r, n, c), made before."""
        return self.query

    def _both(self, context: Tensor) -> Tensor:
        """Keys and values behind each other, for processors of fused projections: (r, t, c) to (r, t, 2 c)."""
        return torch.cat([self.to_k(context), self.to_v(context)], dim=-1)


def _as_it_is(read: Tensor) -> Tensor:
    return read


class ImagePromptUNet(UNet2DConditionModel):
    """A UNet2DConditionModel whose every cross-attention also reads an image prompt.

    Its `encoder_hidden_states` is what `with_image_prompt` makes of the text's and the picture's tokens.
    """

    @wraps(UNet2DConditionModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for block in list(self.modules()):
            plain = getattr(block, "attn2", None)
            if isinstance(plain, Attention):
                block.attn2 = ImagePromptAttention(
                    query_dim=plain.query_dim,
                    cross_attention_dim=plain.cross_attention_dim,
                    heads=plain.heads,
                    dim_head=plain.inner_dim // plain.heads,
                    dropout=plain.dropout,
                    bias=plain.use_bias,
                    upcast_attention=plain.upcast_attention,
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
