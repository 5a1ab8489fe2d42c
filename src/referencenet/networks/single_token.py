"""Cross-attention over one token: an exact shortcut.

With one key the softmax is 1 whatever the query, so attention is the same vector for every pixel: to_out(to_v(token)).
Animate Anyone, AniPortrait and their relatives condition on one CLIP image token. Queries and keys are then never
needed.
"""

from __future__ import annotations

from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from referencenet.links.seats import STANDARD_PROCESSORS


class SingleTokenAttention(Attention):
    """Attention that skips queries and keys where the context has one token.

    Whichever processor computes plain attention otherwise (sliced, fused, the default one) is left aside then.
    """

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:  # fmt: skip
        """Attend from (rows, tokens, channels) to a context (rows, 1, context channels)."""
        if not _is_single(self, encoder_hidden_states, attention_mask):
            return super().forward(hidden_states, encoder_hidden_states, attention_mask, **kwargs)
        vector = self.to_v(encoder_hidden_states)  # (rows, 1, channels)
        for layer in self.to_out:
            vector = layer(vector)
        return (vector / self.rescale_output_factor).expand(-1, hidden_states.shape[1], -1)


def skip_single_tokens(unet: nn.Module) -> None:
    """Give every spatial cross-attention of a UNet the shortcut.

    Args:
        unet: A diffusers UNet under construction; changed in place.
    """
    for name, module in unet.named_modules():
        if name.endswith(".attn2") and ".attentions." in name and type(module) is Attention:
            module.__class__ = SingleTokenAttention


def _is_single(attn: Attention, context: Tensor | None, mask: Tensor | None) -> bool:
    """Whether the shortcut is exact here."""
    plain = attn.spatial_norm is None and attn.group_norm is None and not attn.residual_connection
    plain = plain and not attn.norm_cross and type(attn.processor).__name__ in STANDARD_PROCESSORS
    return context is not None and context.shape[1] == 1 and mask is None and plain
