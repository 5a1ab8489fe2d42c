"""The layers of EMO's denoiser (arXiv 2402.17485): attention to a reference and to sound, and head speed along time.

They stand in the places of diffusers' spatial and temporal blocks, whose weights have the same names. Letters: b
samples, p passes of guidance, f frames, n motion frames, t tokens, c channels, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from torch import Tensor, nn
from torch.nn import functional as F

from referencenet.links.heads import finish, split_heads
from referencenet.links.instead import ReferenceAttention
from referencenet.networks.audio_attention import Held
from referencenet.networks.audio_unet import ClipLayer, Told


@dataclass
class PortraitTold(Told):
    """What the layers of a pass are told beside motion frames.

    Attributes:
        audio: For each pass its sound, (f or b f, t, c); None: silence; empty: there are no audio layers yet.
        speed: Head speed with positions, (1 or b, f, c), the same in all passes; None: the speed layers are left out.
        temporal: Whether there are temporal layers; not while single frames are learned.
        rows: Samples of all passes, p b.
    """

    audio: Sequence[Held | None] = ()
    speed: Held | None = None
    temporal: bool = True
    rows: int = 1


class PortraitBlock(BasicTransformerBlock):
    """Self-attention, attention to the reference in place of the words, attention to the frame's sound, feed-forward.

    Args:
        dim: Channels.
        heads: Of every attention.
        audio_channels: Of the sound's tokens.
        told: What the UNet says.
    """

    def __init__(self, dim: int, heads: int, audio_channels: int, told: PortraitTold) -> None:
        super().__init__(dim, heads, dim // heads, activation_fn="geglu")
        sizes = {"query_dim": dim, "heads": heads, "dim_head": dim // heads}
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = ReferenceAttention(**sizes, cross_attention_dim=dim)
        self.norm_audio = nn.LayerNorm(dim)
        self.audio_attn = silent_at_first(Attention(**sizes, cross_attention_dim=audio_channels))
        self.told = told

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(p b f, h w, c) to the same shape."""
        hidden_states = hidden_states + self.attn1(self.norm1(hidden_states))
        if self.attn2.reads:
            hidden_states = hidden_states + self.attn2(self.norm2(hidden_states))
        if self.told.audio:
            hidden_states = self._hear(hidden_states)
        return hidden_states + fed_forward(self, self.norm3(hidden_states))

    def _hear(self, hidden_states: Tensor) -> Tensor:
        """With the sound: of tokens of zero the output's bias is left, whatever the query."""
        attn, parts = self.audio_attn, hidden_states.chunk(len(self.told.audio))
        heard: list[Tensor] = []
        for part, audio in zip(parts, self.told.audio, strict=True):
            if audio is None:
                nothing = part.new_zeros(1, attn.heads, 1, attn.inner_dim // attn.heads)
                heard.append(part + finish(attn, nothing))
                continue
            query = split_heads(attn, attn.to_q(self.norm_audio(part)))
            key, value = (x.repeat(query.shape[0] // x.shape[0], 1, 1, 1) for x in audio.of(attn, part))
            heard.append(part + finish(attn, F.scaled_dot_product_attention(query, key, value)))
        return heard[0] if len(heard) == 1 else torch.cat(heard)


class SpeedBlock(BasicTransformerBlock):
    """AnimateDiff's block along time, with attention to head speed between its attentions and its feed-forward.

    Args:
        dim: Channels.
        heads: Of every attention.
        positions: Frames and motion frames at most.
        speed_channels: Of the speed's features.
        told: What the UNet says.
    """

    def __init__(self, dim: int, heads: int, positions: int, speed_channels: int, told: PortraitTold) -> None:
        super().__init__(
            dim, heads, dim // heads, activation_fn="geglu", double_self_attention=True,
            positional_embeddings="sinusoidal", num_positional_embeddings=positions,
        )  # fmt: skip
        self.norm_speed = nn.LayerNorm(dim)
        self.speed_attn = silent_at_first(
            Attention(query_dim=dim, heads=heads, dim_head=dim // heads, cross_attention_dim=speed_channels)
        )
        self.told = told

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(p b h w, n + f, c) to the same shape; motion frames have no speed to follow."""
        hidden_states = hidden_states + self.attn1(self.pos_embed(self.norm1(hidden_states)))
        hidden_states = hidden_states + self.attn2(self.pos_embed(self.norm2(hidden_states)))
        if self.told.speed is not None:
            before = hidden_states.shape[1] - self.told.speed.tokens.shape[1]
            placed = self.pos_embed(self.norm_speed(hidden_states))[:, before:]
            moved = hidden_states[:, before:] + self._follow(placed, self.told.speed)
            hidden_states = torch.cat([hidden_states[:, :before], moved], dim=1)
        return hidden_states + fed_forward(self, self.norm3(hidden_states))

    def _follow(self, frames: Tensor, speed: Held) -> Tensor:
        """What the speed of all frames adds, (p b h w, f, c); pixels are one long query, as all see the same keys."""
        attn = self.speed_attn
        key, value = speed.of(attn, frames)
        samples = key.shape[0]
        if samples > 1:
            key, value = (x.repeat(self.told.rows // samples, 1, 1, 1) for x in (key, value))
        query = split_heads(attn, attn.to_q(frames).reshape(key.shape[0], -1, frames.shape[2]))
        return finish(attn, F.scaled_dot_product_attention(query, key, value)).reshape(frames.shape)


class TemporalLayer(ClipLayer):
    """A motion module that begins with motion frames and follows the head's speed.

    Args:
        told: What the UNet says.
        site: Where the motion frames' features come from.
        channels: Of the features.
        heads: Of the attentions.
        positions: Frames and motion frames at most.
        speed_channels: Of the speed's features.
    """

    told: PortraitTold  # pyright: ignore[reportIncompatibleVariableOverride] - it is set once

    def __init__(
        self, told: PortraitTold, site: str, *, channels: int, heads: int, positions: int, speed_channels: int
    ) -> None:
        super().__init__(None, told, site, channels=channels, heads=heads, positions=positions)
        self.transformer_blocks = nn.ModuleList([SpeedBlock(channels, heads, positions, speed_channels, told)])

    def forward(self, hidden_states: Tensor, *given: Any, **named: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Features (p b f, c, h, w) to the same shape."""
        return super().forward(hidden_states, *given, **named) if self.told.temporal else hidden_states


def fed_forward(block: BasicTransformerBlock, normed: Tensor) -> Tensor:
    """What a block's feed-forward layer adds, piece by piece where `set_chunk_feed_forward` has said so.

    Args:
        block: Of a transformer.
        normed: (batch, tokens, channels), what goes into the layer.

    Returns:
        (batch, tokens, channels).
    """
    size = block._chunk_size  # pyright: ignore[reportPrivateUsage] - as blocks of diffusers read it
    if size is None:
        return block.ff(normed)
    axis = block._chunk_dim  # pyright: ignore[reportPrivateUsage]
    return torch.cat([block.ff(piece) for piece in normed.split(size, dim=axis)], dim=axis)


def silent_at_first(attn: Attention) -> Attention:
    """A new attention whose output is zero until it has learned."""
    nn.init.zeros_(attn.to_out[0].weight)
    nn.init.zeros_(attn.to_out[0].bias)
    return attn


def with_positions(features: Tensor, before: int) -> Tensor:
    """Speed features (b, f, c) with sinusoids of the frames' positions behind so many motion frames."""
    table = SinusoidalPositionalEmbedding(features.shape[2], before + features.shape[1]).pe[:, before:]
    return features + table.to(features)
