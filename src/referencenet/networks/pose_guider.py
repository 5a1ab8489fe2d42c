"""The pose guider: a skeleton picture becomes features that are added behind the denoiser's first convolution.

Animate Anyone (Hu et al., 2023), section 3.2: a few convolutions, the last one zero, so that training starts from
the unguided denoiser. The published guider halves three times for an autoencoder of factor 8; here the factor is a
setting. Its convolutions see a few pixels around each place. Beside them a guider may have a context, which sees the
whole pose, as where a chessboard lies on a bent trunk depends on all of it. Both are computed once per picture.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F


class PoseContext(ModelMixin, ConfigMixin):
    """A small U-Net from skeleton pictures to features at the latents' resolution; no published system has one.

    Args:
        conditioning_channels: Channels of the pictures.
        channels: Of the features, a multiple of 8; twice as many inside.
        factor: How many pixels of the picture one feature covers, per side.
    """

    @register_to_config
    def __init__(self, conditioning_channels: int = 3, channels: int = 32, factor: int = 2) -> None:
        super().__init__()
        inner = 2 * channels
        self.conv_in = nn.Conv2d(conditioning_channels * factor**2, channels, 3, padding=1)
        self.first = _residual(channels, channels)
        self.down = nn.ModuleList([_halved(channels, inner), _halved(inner, inner)])
        self.middle = nn.ModuleList([_residual(inner, inner) for _ in range(3)])
        self.up = nn.ModuleList([_doubled(inner, inner), _doubled(inner, channels)])
        self.joined = _residual(2 * inner, inner)
        self.last = nn.ModuleList([_residual(2 * channels, channels), _residual(channels, channels)])

    def forward(self, conditioning: Tensor) -> Tensor:
        """Pictures (batch, c, height, width) in [0, 1] to (batch, channels, height / factor, width / factor)."""
        near = self.first(self.conv_in(F.pixel_unshuffle(conditioning, self.config.factor)), None)
        half, *quarter = self.middle
        wider = half(self.down[0](near), None)
        whole = self.down[1](wider)
        for block in quarter:
            whole = block(whole, None)
        whole = self.joined(torch.cat([self.up[0](whole, list(wider.shape[2:])), wider], dim=1), None)
        hidden = torch.cat([self.up[1](whole, list(near.shape[2:])), near], dim=1)
        for block in self.last:
            hidden = block(hidden, None)
        return hidden


def _residual(channels: int, following: int) -> ResnetBlock2D:
    return ResnetBlock2D(in_channels=channels, out_channels=following, temb_channels=None, groups=8, eps=1e-5)  # pyright: ignore[reportArgumentType]


def _halved(channels: int, following: int) -> Downsample2D:
    return Downsample2D(channels, use_conv=True, out_channels=following, name="op")


def _doubled(channels: int, following: int) -> Upsample2D:
    return Upsample2D(channels, use_conv=True, out_channels=following)


class PoseGuider(ModelMixin, ConfigMixin):
    """Skeleton pictures to features at the latents' resolution.

    Args:
        conditioning_channels: Channels of the pictures.
        conditioning_embedding_channels: Channels of the features: the denoiser's first width.
        block_out_channels: Widths; each step to the next one halves the picture.
        context_channels: Width of a `PoseContext` beside the convolutions, whose features are added; 0: none, as
            published.
    """

    @register_to_config
    def __init__(
        self,
        conditioning_channels: int = 3,
        conditioning_embedding_channels: int = 32,
        block_out_channels: tuple[int, ...] = (16, 32),
        context_channels: int = 0,
    ) -> None:
        super().__init__()
        if len(block_out_channels) < 1:
            raise ValueError("block_out_channels is empty; expected one width more than the picture is halved.")
        self.conv_in = nn.Conv2d(conditioning_channels, block_out_channels[0], 3, padding=1)
        blocks: list[nn.Module] = []
        for width, following in zip(block_out_channels, block_out_channels[1:], strict=False):
            blocks.append(nn.Conv2d(width, width, 3, padding=1))
            blocks.append(nn.Conv2d(width, following, 3, padding=1, stride=2))
        self.blocks = nn.ModuleList(blocks)
        self.conv_out = nn.Conv2d(block_out_channels[-1], conditioning_embedding_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # pyright: ignore[reportArgumentType]
        self.context = PoseContext(conditioning_channels, context_channels, self.factor) if context_channels else None
        if self.context is not None:
            # Not zero: what a pattern's place is good for depends on its colours; on average no gradient asks for it.
            self.context_out = nn.Conv2d(context_channels, conditioning_embedding_channels, 1, bias=False)

    @property
    def factor(self) -> int:
        """How many pixels of the picture one feature covers, per side."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    def forward(self, conditioning: Tensor) -> Tensor:
        """Guide.

        Args:
            conditioning: (batch, channels, height, width) in [0, 1]; sides that `factor` divides.

        Returns:
            (batch, conditioning_embedding_channels, height / factor, width / factor).

        Raises:
            ValueError: If the shape does not fit.
        """
        channels = self.config.conditioning_channels
        if (
            conditioning.ndim != 4
            or conditioning.shape[1] != channels
            or any(s % self.factor for s in conditioning.shape[2:])
        ):
            raise ValueError(
                f"the pose picture has shape {tuple(conditioning.shape)}; expected (batch, {channels}, height, "
                f"width) with sides that {self.factor} divides: resize it."
            )
        hidden = F.silu(self.conv_in(conditioning))
        for block in self.blocks:
            hidden = F.silu(block(hidden))
        features = self.conv_out(hidden)
        return features if self.context is None else features + self.context_out(self.context(conditioning))


@contextmanager
def added_after_first_convolution(unet: nn.Module, features: Tensor) -> Generator[None]:
    """Inside, the UNet's first convolution gives its output plus `features`, (batch, channels, height, width)."""

    def add(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + features

    handle = unet.get_submodule("conv_in").register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
