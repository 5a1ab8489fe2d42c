"""AniPortrait's pose guider (Wei et al. 2024, arXiv 2403.17694): a drawing of a face mesh as five feature maps.

Convolutions with BatchNorm, halving the drawing, and a self-attending transformer behind each of the last four stages;
the maps are added behind the denoiser's first convolution and its down blocks. The paper's attention to the
reference's drawing is in no released weight, so it is not here. BatchNorm takes the statistics of the given frames, as
every published program runs it; the running ones, which a file also holds, are an option.
"""

from __future__ import annotations

from typing import cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

STEM = ((3, 3), (3, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128))
"""Width and following width of the convolutions from pixels to latents; the second, fourth and sixth may halve."""


class LandmarkGuider(ModelMixin, ConfigMixin):
    """Drawings to five feature maps.

    Args:
        channels: c, the denoiser's first width, a multiple of 32.
        heads: Of the transformers.
        head_dim: Channels of a head; both as released.
        widths: Channels of the four maps behind the first; empty: c, 2 c, 4 c and 4 c, as released.
        factor: How many pixels one latent covers, per side: 1, 2, 4 or 8.

    Raises:
        ValueError: If there is no such factor, or there are not four widths.
    """

    @register_to_config
    def __init__(
        self, channels: int = 320, heads: int = 16, head_dim: int = 88, widths: tuple[int, ...] = (), factor: int = 8
    ) -> None:
        super().__init__()
        if factor not in (1, 2, 4, 8):
            raise ValueError(f"factor is {factor}; expected 1, 2, 4 or 8 pixels a latent.")
        if len(widths) not in (0, 4):
            raise ValueError(f"widths is {tuple(widths)}; expected one width for each of the four later maps.")
        c, groups = channels, min(32, channels)
        first, second, third, fourth = widths or (c, 2 * c, 4 * c, 4 * c)
        self.conv_layers = _stage(*_stem(factor))
        self.final_proj = nn.Conv2d(128, c, 1)
        nn.init.zeros_(self.final_proj.weight)
        nn.init.zeros_(cast(Tensor, self.final_proj.bias))
        self.scale = nn.Parameter(torch.full((1,), 2.0))
        self.conv_layers_1 = _stage((c, c, 3, 1), (c, first, 3, 2))
        self.conv_layers_2 = _stage((first, first, 3, 1), (first, second, 3, 2))
        self.conv_layers_3 = _stage((second, second, 3, 1), (second, third, 3, 2))
        self.conv_layers_4 = _stage((third, fourth, 3, 1))
        self.cross_attn1 = Transformer2DModel(heads, head_dim, first, norm_num_groups=groups)
        self.cross_attn2 = Transformer2DModel(heads, head_dim, second, norm_num_groups=groups)
        self.cross_attn3 = Transformer2DModel(heads, head_dim, third, norm_num_groups=groups)
        self.cross_attn4 = Transformer2DModel(heads, head_dim, fourth, norm_num_groups=groups)

    def forward(self, drawings: Tensor, *, published_norm: bool = True) -> list[Tensor]:
        """Guide.

        Args:
            drawings: (frames, 3, H, W), in [-1, 1] as in training.
            published_norm: Normalise by the statistics of these frames; False: by the running ones, which makes a
                frame's features independent of the others. A guider in training mode does as BatchNorm does.

        Returns:
            p0 to p4, as released: (frames, c, H/8, W/8), (frames, c, H/16, W/16), (frames, 2 c, H/32, W/32), and
            twice (frames, 4 c, H/64, W/64); halvings round up.

        Raises:
            ValueError: If the drawings have another shape.
        """
        factor = self.config.factor
        if drawings.ndim != 4 or drawings.shape[1] != 3 or any(side % factor for side in drawings.shape[2:]):
            raise ValueError(
                f"the drawings have shape {tuple(drawings.shape)}; expected (frames, 3, height, width) with sides that "
                f"{factor} divides: resize them."
            )
        own = published_norm and not self.training
        hidden = self.final_proj(_run(self.conv_layers, drawings, own)) * self.scale
        maps = [hidden]
        stages = (
            (self.conv_layers_1, self.cross_attn1),
            (self.conv_layers_2, self.cross_attn2),
            (self.conv_layers_3, self.cross_attn3),
            (self.conv_layers_4, self.cross_attn4),
        )
        for convolutions, attention in stages:
            hidden = attention(_run(convolutions, hidden, own), return_dict=False)[0]
            maps.append(hidden)
        return maps


class OwnBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm that can take the statistics of its own input also outside of training."""

    def forward(self, input: Tensor, own_statistics: bool = False) -> Tensor:
        """Normalise (frames, c, h, w): by these frames' own statistics, or as the layer's mode says."""
        if not own_statistics:
            return super().forward(input)
        return F.batch_norm(input, None, None, self.weight, self.bias, training=True, eps=self.eps)


def _stem(factor: int) -> list[tuple[int, int, int, int]]:
    """Shapes of the convolutions from pixels to latents: with a smaller factor, later ones keep the size."""
    halving = [1, 3, 5][: factor.bit_length() - 1]
    return [(*widths, 4, 2) if i in halving else (*widths, 3, 1) for i, widths in enumerate(STEM)]


def _stage(*shapes: tuple[int, int, int, int]) -> nn.Sequential:
    """Convolutions, each with BatchNorm and ReLU; the indices are the published keys'."""
    layers: list[nn.Module] = []
    for width, following, kernel, stride in shapes:
        layers += [nn.Conv2d(width, following, kernel, stride, 1), OwnBatchNorm2d(following), nn.ReLU()]
    return nn.Sequential(*layers)


def _run(stage: nn.Sequential, hidden: Tensor, own_statistics: bool) -> Tensor:
    """A stage on (frames, c, h, w), normalised by these frames' own statistics, or as its BatchNorm is set."""
    for layer in stage:
        hidden = layer(hidden, own_statistics) if isinstance(layer, OwnBatchNorm2d) else layer(hidden)
    return hidden
