"""What a frame and its neighbours say (EMO, arXiv 2402.17485): sound as one token a neighbour, and head speed.

The paper names the neighbourhood (two frames on either side) and the speed's code; layers are a choice of ours.
Neighbours beyond an end are the first or the last frame. Letters: k frames that are seen, f frames that are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

EDGES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 6.0, 9.0)
"""Of the buckets of head speed, in degrees a frame: finer near rest, where most frames are."""

STEEPNESS = 3.0
"""Of the tanh at a bucket's edges, after the paper."""


def neighbours(start: int, stop: int, size: int, frames: int) -> Tensor:
    """The frames around each of [start, stop) in a film of so many, (stop - start, size); `size` is odd."""
    return (torch.arange(start, stop).unsqueeze(1) + torch.arange(size) - size // 2).clamp(0, frames - 1)


def buckets(edges: Sequence[float]) -> tuple[list[float], list[float]]:
    """Centres and radii of the buckets between edges.

    Raises:
        ValueError: If there is no bucket, or edges do not rise.
    """
    pairs = list(zip(edges, edges[1:], strict=False))
    if not pairs or any(low >= high for low, high in pairs):
        raise ValueError(f"the edges are {list(edges)}; expected at least two rising numbers, in degrees a frame.")
    return [(low + high) / 2 for low, high in pairs], [(high - low) / 2 for low, high in pairs]


def speed_codes(speeds: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """tanh(3 (w - c) / r) of every bucket in float32: speeds (...) in degrees a frame to (..., buckets) in [-1, 1]."""
    return torch.tanh((speeds.float().unsqueeze(-1) - centres.float()) / radii.float() * STEEPNESS)


class NeighbourTokens(ModelMixin, ConfigMixin):
    """Speech features to one token for each neighbour of a frame; each frame of sound is projected once.

    Args:
        window: Neighbours, the frame among them; odd.
        layers: Layers of the speech model.
        channels: Of each layer.
        cross_attention_dim: Channels of the tokens.
    """

    @register_to_config
    def __init__(
        self, window: int = 5, layers: int = 12, channels: int = 768, cross_attention_dim: int = 768
    ) -> None:  # fmt: skip
        super().__init__()
        self.proj_in = nn.Linear(layers * channels, cross_attention_dim)
        self.proj_out = nn.Linear(cross_attention_dim, cross_attention_dim)
        self.norm = nn.LayerNorm(cross_attention_dim)
        self.offset = nn.Parameter(torch.randn(window, cross_attention_dim) * 0.02)

    def forward(self, features: Tensor, around: Tensor) -> Tensor:
        """Tokens of frames.

        Args:
            features: Of the frames that are seen, (k, layers, channels).
            around: For each frame its neighbours' places among them, (f, window).

        Returns:
            (f, window, cross_attention_dim).
        """
        hidden = self.norm(self.proj_out(nn.functional.silu(self.proj_in(features.flatten(1)))))
        return hidden[around.to(hidden.device)] + self.offset


class SpeedProjection(ModelMixin, ConfigMixin):
    """Speeds of a frame's neighbours to a feature of the frame.

    Args:
        centres: Of the buckets, in degrees a frame; None: those between `EDGES`.
        radii: Likewise.
        window: Neighbours, the frame among them; odd.
        hidden_dim: Inside.
        channels: Of the feature.

    Raises:
        ValueError: If centres and radii are unequally many, or a radius is not above 0.
    """

    @register_to_config
    def __init__(
        self, centres: Sequence[float] | None = None, radii: Sequence[float] | None = None, window: int = 5,
        hidden_dim: int = 256, channels: int = 768,
    ) -> None:  # fmt: skip
        super().__init__()
        if centres is None and radii is None:
            centres, radii = buckets(EDGES)
        if not centres or not radii or len(centres) != len(radii) or min(radii) <= 0:
            raise ValueError(f"the buckets have centres {centres} and radii {radii}; give one radius above 0 for each.")
        self.register_to_config(centres=list(centres), radii=list(radii))
        self.proj_in = nn.Linear(window * len(centres), hidden_dim)
        self.proj_out = nn.Linear(hidden_dim, channels)

    def forward(self, speeds: Tensor, around: Tensor) -> Tensor:
        """Features of frames.

        Args:
            speeds: Of the frames that are seen, (k,) in degrees a frame.
            around: For each frame its neighbours' places among them, (f, window).

        Returns:
            (f, channels).
        """
        codes = speed_codes(speeds, *(torch.tensor(self.config[x], device=speeds.device) for x in ("centres", "radii")))
        seen = codes[around.to(codes.device)].flatten(1)
        return self.proj_out(nn.functional.silu(self.proj_in(seen.to(self.dtype))))
