"""Cross-attention over one token: an exact shortcut.

With one key the softmax is 1 whatever the query, so attention is the same vector for every pixel: to_out(to_v(token)).
Animate Anyone, AniPortrait and their relatives condition on one CLIP image token. Queries and keys are then never
needed.
"""

from __future__ import annotations

from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn


class SingleTokenProcessor(AttnProcessor2_0):
    """Attention processor that skips queries and keys where the context has one token; otherwise plain attention."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Attend from (rows, tokens, channels) to a context (rows, 1, context channels)."""
        if not _is_single(attn, encoder_hidden_states, attention_mask):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs)
        vector = attn.to_v(encoder_hidden_states)  # (rows, 1, channels)
        for layer in attn.to_out:
            vector = layer(vector)
        return (vector / attn.rescale_output_factor).expand(-1, hidden_states.shape[1], -1)


def skip_single_tokens(unet: nn.Module) -> None:
    """Give every spatial cross-attention of a UNet the shortcut.

    Args:
        unet: A diffusers UNet under construction; changed in place.
    """
    for name, module in unet.named_modules():
        if name.endswith(".attn2") and ".attentions." in name and isinstance(module, Attention):
            module.set_processor(SingleTokenProcessor())


def _is_single(attn: Attention, context: Tensor | None, mask: Tensor | None) -> bool:
    """Whether the shortcut is exact here."""
    plain = attn.spatial_norm is None and attn.group_norm is None and not attn.residual_connection
    return context is not None and context.shape[1] == 1 and mask is None and plain and not attn.norm_cross
