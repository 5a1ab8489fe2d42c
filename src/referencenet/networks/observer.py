"""The observer: a small network that tells who is in a paperdoll picture, how they stand, and what can be said.

It is the measure of the built-in model, so it never takes part in generation: an embedding for the identity score
(cosine similarity), 18 key points for the pose error, and one classifier per aspect of the vocabulary for prompt
following.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

NUM_KEYPOINTS = 18


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the observer saw.

    Attributes:
        embedding: (batch, embedding_dim), of length one; cosine similarity compares people.
        keypoints: (batch, 18, 2), x and y in [0, 1] of the picture, in OpenPose order.
        logits: Per aspect (batch, values).
    """

    embedding: Tensor
    keypoints: Tensor
    logits: dict[str, Tensor]


class _Residual(nn.Module):
    """Two convolutions beside a shortcut; `stride` 2 halves the picture."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride=stride)

    def forward(self, hidden: Tensor) -> Tensor:
        residual = self.conv1(F.silu(self.norm1(hidden)))
        return self.shortcut(hidden) + self.conv2(F.silu(self.norm2(residual)))


class Observer(ModelMixin, ConfigMixin):
    """Looks at pictures.

    Args:
        aspects: Per aspect the values it can have, in the order of the logits.
        block_out_channels: Widths at 1/2, 1/4 and 1/8 of the picture.
        embedding_dim: Width of the identity embedding.
    """

    @register_to_config
    def __init__(
        self,
        aspects: dict[str, list[str]],
        block_out_channels: tuple[int, int, int] = (16, 48, 96),
        embedding_dim: int = 64,
    ) -> None:
        super().__init__()
        small, middle, large = block_out_channels
        self.stem = nn.Conv2d(3, small, 4, stride=2, padding=1)
        self.early = nn.Sequential(
            _Residual(small, small, 1), _Residual(small, middle, 2), _Residual(middle, middle, 1)
        )
        self.points = nn.Sequential(_Residual(middle, middle, 1), nn.GroupNorm(8, middle), nn.SiLU())
        self.heat = nn.Conv2d(middle + large, NUM_KEYPOINTS, 1)
        self.late = nn.Sequential(
            _Residual(middle, large, 2), _Residual(large, large, 1), nn.GroupNorm(8, large), nn.SiLU()
        )
        self.pool = nn.Conv2d(large, 2 * large, 4, stride=4)
        self.embed = nn.Linear(3 * large, embedding_dim)
        heads = {aspect: nn.Linear(large * 3, len(values)) for aspect, values in aspects.items()}
        self.heads = nn.ModuleDict(heads)

    def forward(self, pictures: Tensor) -> Observation:
        """Observe.

        Args:
            pictures: (batch, 3, height, width) in [-1, 1]; they are seen at 64x64.

        Raises:
            ValueError: If the shape is another.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ValueError(
                f"the pictures have shape {tuple(pictures.shape)}; expected (batch, 3, height, width) with "
                "values in [-1, 1]."
            )
        if pictures.shape[2:] != (64, 64):
            pictures = F.interpolate(pictures, size=(64, 64), mode="bilinear", antialias=True, align_corners=False)
        early = self.early(self.stem(pictures))  # (batch, 64, 16, 16)
        late = self.late(early)  # (batch, 128, 8, 8)
        whole = torch.cat([F.silu(self.pool(late)).amax(dim=(2, 3)), late.mean(dim=(2, 3))], dim=1)  # (batch, 384)
        wide = F.interpolate(late, scale_factor=2.0, mode="nearest")
        heat = self.heat(torch.cat([self.points(early), wide], dim=1))  # (batch, 18, 16, 16)
        return Observation(
            embedding=F.normalize(self.embed(whole), dim=1),
            keypoints=_expected_place(heat),
            logits={aspect: head(whole) for aspect, head in self.heads.items()},
        )


def _expected_place(heat: Tensor) -> Tensor:
    """Softmax-weighted mean place of each map: (batch, points, height, width) to (batch, points, 2) in [0, 1]."""
    height, width = heat.shape[2:]
    share = heat.flatten(2).softmax(dim=2).view_as(heat)
    xs = (torch.arange(width, device=heat.device, dtype=heat.dtype) + 0.5) / width
    ys = (torch.arange(height, device=heat.device, dtype=heat.dtype) + 0.5) / height
    return torch.stack([(share.sum(dim=2) * xs).sum(dim=2), (share.sum(dim=3) * ys).sum(dim=2)], dim=2)
