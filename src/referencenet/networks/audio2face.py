"""AniPortrait's networks from speech to a face (arXiv 2403.17694; Zejun-Yang/AniPortrait, commit 7f6593f): Audio2Lmk.

Each has a wav2vec 2.0 encoder of its own and takes its last states, at 30 frames a second; `networks.wav2vec` makes
them. The published decoder of head poses runs over its whole prefix for each frame; here each frame is decoded once,
with the keys and values of those before it kept: the same poses. b sounds, f frames, c channels, h heads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Wav2Vec2Model

POSE = 6  # three angles in degrees and a translation
MAX_FRAMES = 600  # of the published table of positions


class MeshFromSpeech(nn.Module):
    """How far each vertex of a face mesh moves.

    Args:
        audio_encoder: wav2vec 2.0.
        width: c.
        points: Of the mesh.
    """

    def __init__(self, audio_encoder: Wav2Vec2Model, width: int = 512, points: int = 468) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder
        self.in_fn = nn.Linear(audio_encoder.config.hidden_size, width)
        self.out_fn = nn.Linear(width, points * 3)

    def forward(self, states: Tensor) -> Tensor:
        """Offsets.

        Args:
            states: Of the encoder, (1, f, its width).

        Returns:
            (1, f, points, 3), metric.
        """
        return self.out_fn(self.in_fn(states)).unflatten(-1, (-1, 3))


class PoseFromSpeech(nn.Module):
    """How a head moves, frame after frame.

    Args:
        audio_encoder: wav2vec 2.0.
        width: c.
        heads: h.
        layers: Of the decoder.
        feedforward: Channels between its linear layers.
        identities: Ways to move a head.
    """

    def __init__(
        self,
        audio_encoder: Wav2Vec2Model,
        width: int = 512,
        heads: int = 8,
        layers: int = 8,
        feedforward: int = 1024,
        identities: int = 100,
    ) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder
        self.pose_map = nn.Linear(POSE, width)
        self.in_fn = nn.Linear(audio_encoder.config.hidden_size, width)
        layer = nn.TransformerDecoderLayer(width, heads, feedforward, batch_first=True)
        self.transformer_decoder = nn.TransformerDecoder(layer, layers)
        self.pose_map_r = nn.Linear(width, POSE)
        self.id_embed = nn.Embedding(identities, width)

    def forward(self, states: Tensor, identity: int) -> Tensor:
        """Poses.

        Args:
            states: Of the encoder, (1, f, its width).
            identity: Which way to move.

        Returns:
            (1, f, 6), relative to the first frame.

        Raises:
            ValueError: If there is no such identity, or there are more frames than positions.
        """
        num_frames = states.shape[1]
        if not 0 <= identity < self.id_embed.num_embeddings or num_frames > MAX_FRAMES:
            raise ValueError(
                f"identity is {identity}, of {num_frames} frames; expected 0 to {self.id_embed.num_embeddings - 1}, "
                f"and at most {MAX_FRAMES} frames."
            )
        memory = self.in_fn(states)
        layers = [_Layer(layer, memory) for layer in self.transformer_decoder.layers]
        added = positions(num_frames, memory.shape[-1]).to(memory) + self.id_embed.weight[identity]  # (f, c)
        poses = [memory.new_zeros(1, 1, POSE)]
        for i in range(num_frames):
            token = self.pose_map(poses[-1]) + added[i]
            for layer in layers:
                token = layer.next(token, i)
            poses.append(self.pose_map_r(token))
        return torch.cat(poses[1:], dim=1)

    def taught(self, states: Tensor, identities: Tensor, poses: Tensor) -> Tensor:
        """Poses of all frames at once, each from the true ones before it, as it learns.

        Args:
            states: Of the encoder, (b, f, its width).
            identities: Which way each moves, (b,).
            poses: The true ones, (b, f, 6).

        Returns:
            (b, f, 6). Of poses that are its own, what `forward` gives.
        """
        memory, frames = self.in_fn(states), states.shape[1]
        before = functional.pad(poses[:, :-1], (0, 0, 1, 0))
        tokens = self.pose_map(before) + positions(frames, memory.shape[-1]).to(memory)
        tokens = tokens + self.id_embed(identities)[:, None]
        for layer in self.transformer_decoder.layers:
            tokens = _Layer(layer, memory).all(tokens)
        return self.pose_map_r(tokens)


class _Layer:
    """A layer of the decoder on its way through the frames.

    Args:
        layer: Post-norm; its memory mask lets a frame see its own memory alone, so that the attention is a linear map.
        memory: (b, f, c).
    """

    def __init__(self, layer: Any, memory: Tensor) -> None:
        self.layer = layer
        self.heads = layer.self_attn.num_heads
        cross = layer.multihead_attn
        weight, bias = cross.in_proj_weight.chunk(3)[2], cross.in_proj_bias.chunk(3)[2]
        self.heard = cross.out_proj(functional.linear(memory, weight, bias))  # (b, f, c)
        shape = (len(memory), self.heads, memory.shape[1], memory.shape[2] // self.heads)
        self.keys, self.values = memory.new_empty(shape), memory.new_empty(shape)
        self.slopes = slopes(self.heads).to(memory)[:, None]  # (h, 1)

    def next(self, token: Tensor, i: int) -> Tensor:
        """Frame i, (1, 1, c), through the layer; frames before it have been."""
        query, key, value = self._parts(token)  # (1, h, 1, c / h)
        self.keys[:, :, i], self.values[:, :, i] = key[:, :, 0], value[:, :, 0]
        distance = torch.arange(i, -1, -1, device=token.device)
        bias = (-self.slopes * distance)[None, :, None]  # (1, h, 1, i + 1)
        read = functional.scaled_dot_product_attention(
            query, self.keys[:, :, : i + 1], self.values[:, :, : i + 1], attn_mask=bias
        )
        return self._behind(token, read, self.heard[:, i : i + 1])

    def all(self, tokens: Tensor) -> Tensor:
        """All frames, (b, f, c), through the layer; each sees those before it and itself."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        distance = places[:, None] - places
        bias = (-self.slopes[:, :, None] * distance).masked_fill(distance < 0, -math.inf)  # (h, f, f)
        query, key, value = self._parts(tokens)
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return self._behind(tokens, read, self.heard)

    def _parts(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value of frames (b, n, c), (b, h, n, c / h) each."""
        attention = self.layer.self_attn
        parts = functional.linear(tokens, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        return tuple(part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)

    def _behind(self, tokens: Tensor, read: Tensor, heard: Tensor) -> Tensor:
        """What the layer gives of frames (b, n, c) that have read (b, h, n, c / h) of each other."""
        layer = self.layer
        tokens = layer.norm1(tokens + layer.self_attn.out_proj(read.transpose(1, 2).flatten(2)))
        tokens = layer.norm2(tokens + heard)
        return layer.norm3(tokens + layer.linear2(functional.relu(layer.linear1(tokens))))


def slopes(heads: int) -> Tensor:
    """ALiBi's slopes (h,), for h a power of two: how much a head minds distance."""
    return 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1))


def positions(num_frames: int, width: int) -> Tensor:
    """The sinusoidal table (f, c), sines and cosines interleaved."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(num_frames)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
