"""Audio in a denoiser (Hallo): a transformer per layer whose cross-attentions to a frame's audio act where masks say.

Three cross-attentions hear the same tokens; each acts in a region of the picture (pose, face, lip) through a mask and a
zero-initialised layer of its own. A pass that hears nothing has tokens of zero: its attention gives the bias of its
output layer whatever the query, so no attention is computed. Letters: b samples, p passes of guidance, f frames, r = p
b f rows, n tokens of the picture, t tokens of the audio, c channels, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

from referencenet.links.heads import finish, project, split_heads

Pair = tuple[Tensor, Tensor]


@dataclass
class Held:
    """Tokens that many passes read, and the keys and values that attentions made of them, which are made once.

    Attributes:
        tokens: (rows, t, c).
        pairs: Attention to its keys and values, each (rows, heads, t, c / heads).
    """

    tokens: Tensor
    pairs: dict[nn.Module, Pair] = field(default_factory=dict[nn.Module, Pair])

    def hold(self, attentions: Sequence[Attention], like: Tensor) -> None:
        """Make keys and values for attentions that have none, in the precision of features `like`, (r, n, c)."""
        for attn in attentions:
            if attn not in self.pairs:
                self.pairs[attn] = self.made(attn, like)

    def of(self, attn: Attention, like: Tensor) -> Pair:
        """Those of an attention: held, or made now in the precision of features `like`, (r, n, c)."""
        return self.pairs[attn] if attn in self.pairs else self.made(attn, like)

    def made(self, attn: Attention, like: Tensor) -> Pair:
        """Keys and values of an attention, made now in the precision of features `like`, (r, n, c)."""
        key, value = project(attn, self.tokens.to(like))
        return split_heads(attn, key), split_heads(attn, value)


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What the audio layers of a pass are told.

    Attributes:
        tokens: For each pass of guidance the audio, (1 or b, f, t, c) with its first two axes folded; None: silence.
        masks: Number of tokens n to what the three attentions act on, (3, 1 or f or b f, n).
        weights: How much each attention counts.
    """

    tokens: Sequence[Held | None]
    masks: Mapping[int, Tensor]
    weights: Sequence[float] = (1.0, 1.0, 1.0)


class AudioTransformer(nn.Module):
    """Self-attention of a frame, its three masked attentions to audio, and a feed-forward.

    Args:
        channels: Of the features.
        inner: Of the transformer; in the published networks not always the same.
        heads: Of every attention.
        audio_channels: Of the audio's tokens.
        groups: Of the GroupNorm.
    """

    def __init__(self, channels: int, inner: int, *, heads: int, audio_channels: int, groups: int) -> None:
        super().__init__()
        sizes = {"query_dim": inner, "heads": heads, "dim_head": inner // heads}
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(inner), nn.LayerNorm(inner), nn.LayerNorm(inner)
        self.attn1 = Attention(**sizes)
        self.attn2 = nn.ModuleList([Attention(**sizes, cross_attention_dim=audio_channels) for _ in range(3)])
        self.zero = nn.ModuleList([nn.Linear(inner, inner) for _ in range(3)])
        self.ff = FeedForward(inner, activation_fn="geglu")
        self.proj_out = nn.Linear(inner, channels)
        for layer in self.zero:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden_states: Tensor, heard: Heard) -> Tensor:
        """Features (r, c, h, w), passes behind each other, to the same shape.

        Raises:
            ValueError: If there is no mask of the features' size.
        """
        size = hidden_states.shape[2:]
        tokens = self.proj_in(self.norm(hidden_states).flatten(2).transpose(1, 2))  # (r, n, inner)
        masks = heard.masks.get(tokens.shape[1])
        if masks is None:
            raise ValueError(
                f"there are masks of {sorted(heard.masks)} tokens, but features of {size[0]} x {size[1]}; give one "
                "mask for every level of the latents."
            )
        masks = masks.to(tokens)
        tokens = tokens + self.attn1(self.norm1(tokens))
        passes = tokens.chunk(len(heard.tokens))
        tokens = torch.cat(
            [
                part + (self._silence(part, masks, heard) if audio is None else self._hear(part, audio, masks, heard))
                for part, audio in zip(passes, heard.tokens, strict=True)
            ]
        )
        tokens = tokens + self.ff(self.norm3(tokens))
        return self.proj_out(tokens).transpose(1, 2).unflatten(2, size) + hidden_states

    def _hear(self, part: Tensor, audio: Held, masks: Tensor, heard: Heard) -> Tensor:
        """What a pass with audio adds, (b f, n, inner)."""
        normed, total = self.norm2(part), torch.zeros_like(part)
        for attn, zero, mask, weight in zip(self.attn2, self.zero, masks, heard.weights, strict=True):
            key, value = (_spread(x, part.shape[0]) for x in audio.of(attn, part))  # pyright: ignore[reportArgumentType]
            read = F.scaled_dot_product_attention(split_heads(attn, attn.to_q(normed)), key, value)  # pyright: ignore
            total = total + weight * zero(finish(attn, read) * _each(mask, part))  # pyright: ignore[reportArgumentType]
        return total

    def _silence(self, part: Tensor, masks: Tensor, heard: Heard) -> Tensor:
        """What a pass without audio adds: its attention gives the output's bias, (1 or b f, n, inner)."""
        total = masks.new_zeros(())
        for attn, zero, mask, weight in zip(self.attn2, self.zero, masks, heard.weights, strict=True):
            nothing = masks.new_zeros(1, attn.heads, 1, attn.inner_dim // attn.heads)  # pyright: ignore
            bias = finish(attn, nothing)  # pyright: ignore[reportArgumentType] - (1, 1, inner)
            within, outside = zero(torch.cat([bias, torch.zeros_like(bias)], dim=1)).unbind(1)
            total = total + weight * (_each(mask, part) * (within - outside) + outside)
        return total


class HeldProcessor(AttnProcessor2_0):
    """Cross-attention to keys and values that its slot holds, one set for all frames of a sample; else plain."""

    def __init__(self) -> None:
        super().__init__()
        self.slot: Pair | None = None

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, temb: Tensor | None = None, *args: object, **kwargs: object,
    ) -> Tensor:  # fmt: skip
        """Attend from (p b f, n, c); the slot holds keys and values (p b, heads, t, c / heads)."""
        if self.slot is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs)
        key, value = self.slot
        rows, tokens, channels = hidden_states.shape
        query = attn.to_q(hidden_states).reshape(key.shape[0], -1, channels)  # (p b, f n, c)
        read = F.scaled_dot_product_attention(split_heads(attn, query), key, value)
        return finish(attn, read).reshape(rows, tokens, channels)


def _spread(frames: Tensor, rows: int) -> Tensor:
    """Keys or values of the frames of one sample, or of all, for all rows of a pass: (b f, ...)."""
    return frames if frames.shape[0] == rows else frames.repeat(rows // frames.shape[0], *[1] * (frames.ndim - 1))


def _each(mask: Tensor, part: Tensor) -> Tensor:
    """A mask (1 or f or b f, n) for the rows of a pass: (1 or b f, n, 1)."""
    return (mask if mask.shape[0] == 1 else _spread(mask, part.shape[0])).unsqueeze(2)
