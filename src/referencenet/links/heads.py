"""An attention module's own layers: from tokens into heads, and from heads back to tokens.

What diffusers' processors do around the kernel, in four steps that links share. Layers are called, never read: hooks
that bring weights or cast them (offloading, layerwise casting, quantised weights) act as in a plain pass. Letters: r
rows, n tokens, c channels, h heads, d head width.
"""

from __future__ import annotations

from diffusers.models.attention_processor import Attention
from torch import Tensor


def project(attn: Attention, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (r, n, c) of a self-attention's input (r, n, c)."""
    return attn.to_k(hidden_states), attn.to_v(hidden_states)


def split_heads(attn: Attention, hidden_states: Tensor) -> Tensor:
    """(r, n, c) to (r, h, n, d)."""
    return hidden_states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def query_key_value(attn: Attention, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three of a self-attention's input (r, n, c), each (r, h, n, d)."""
    key, value = project(attn, hidden_states)
    return split_heads(attn, attn.to_q(hidden_states)), split_heads(attn, key), split_heads(attn, value)


def own_mask(attn: Attention, attention_mask: Tensor | None, hidden_states: Tensor) -> Tensor | None:
    """The mask of the own tokens as SDPA takes it: (r, h, 1, n)."""
    if attention_mask is None:
        return None
    rows, tokens, _ = hidden_states.shape
    mask = attn.prepare_attention_mask(attention_mask, tokens, rows)
    return mask.view(rows, attn.heads, -1, mask.shape[-1])


def finish(attn: Attention, hidden_states: Tensor) -> Tensor:
    """Heads (r, h, n, d) together again and through the output projection: (r, n, c)."""
    hidden_states = hidden_states.transpose(1, 2).flatten(2)
    for layer in attn.to_out:
        hidden_states = layer(hidden_states)
    return hidden_states / attn.rescale_output_factor
