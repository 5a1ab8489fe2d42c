"""The autoencoder attention of FlashFace's released code, which reads its own result in a wrong order.

Its middle attention lays its output out as (positions, channels) and reshapes it to (channels, height, width) without
transposing. A plain fault: the standard autoencoder is right for the same weights. It is here for those who want the
released program's pictures. Letters: r rows, c channels, n = height * width positions, h heads.
"""

from __future__ import annotations

from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional as F


class ScrambledAttnProcessor:
    """An attention processor for the two middle attentions of AutoencoderKL."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,  # noqa: ARG002 - as diffusers calls a processor
        attention_mask: Tensor | None = None,  # noqa: ARG002
        temb: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """(r, c, height, width) to the same shape."""
        rows, channels, height, width = hidden_states.shape
        tokens = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)  # (r, n, c)
        query, key, value = (
            layer(tokens).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (r, h, n, c / h)
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        output = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # (r, n, c)
        scrambled = output.reshape(rows, channels, height * width).transpose(1, 2)  # (r, n, c), read as (c, n)
        for layer in attn.to_out:
            scrambled = layer(scrambled)
        return hidden_states + scrambled.transpose(1, 2).reshape(hidden_states.shape)
