"""Embeddings as tokens for cross-attention (Hallo): a face's embedding, and the audio around a frame.

Both are a few linear layers and a LayerNorm, with the published names.
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class FaceProjection(ModelMixin, ConfigMixin):
    """An embedding of a face to tokens.

    Args:
        embedding_dim: Channels of the embedding.
        cross_attention_dim: Channels of the tokens.
        num_tokens: How many.
    """

    @register_to_config
    def __init__(self, embedding_dim: int = 512, cross_attention_dim: int = 768, num_tokens: int = 4) -> None:
        super().__init__()
        self.proj = nn.Linear(embedding_dim, num_tokens * cross_attention_dim)
        self.norm = nn.LayerNorm(cross_attention_dim)

    def forward(self, embedding: Tensor) -> Tensor:
        """(r, embedding_dim) to (r, num_tokens, cross_attention_dim)."""
        return self.norm(self.proj(embedding).unflatten(1, (self.config.num_tokens, -1)))


class AudioProjection(ModelMixin, ConfigMixin):
    """Speech features of a frame and its neighbours to tokens.

    Args:
        window: Frames that are seen: the frame and as many on either side.
        layers: Layers of the speech model.
        channels: Of each layer.
        hidden_dim: Inside.
        cross_attention_dim: Channels of the tokens.
        num_tokens: For each frame.
    """

    @register_to_config
    def __init__(
        self,
        window: int = 5,
        layers: int = 12,
        channels: int = 768,
        hidden_dim: int = 512,
        cross_attention_dim: int = 768,
        num_tokens: int = 32,
    ) -> None:
        super().__init__()
        self.proj1 = nn.Linear(window * layers * channels, hidden_dim)
        self.proj2 = nn.Linear(hidden_dim, hidden_dim)
        self.proj3 = nn.Linear(hidden_dim, num_tokens * cross_attention_dim)
        self.norm = nn.LayerNorm(cross_attention_dim)

    def forward(self, features: Tensor) -> Tensor:
        """(frames, window, layers, channels) to (frames, num_tokens, cross_attention_dim)."""
        hidden = torch.relu(self.proj2(torch.relu(self.proj1(features.flatten(1)))))
        return self.norm(self.proj3(hidden).unflatten(1, (self.config.num_tokens, -1)))
