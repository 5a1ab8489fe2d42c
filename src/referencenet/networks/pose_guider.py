"""The pose guider: a skeleton picture becomes features that are added behind the denoiser's first convolution.

Animate Anyone (Hu et al., 2023), section 3.2: a few convolutions, the last one zero, so that training starts from
the unguided denoiser. The published guider halves three times for an autoencoder of factor 8; here the factor is a
setting.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F


class PoseGuider(ModelMixin, ConfigMixin):
    """Skeleton pictures to features at the latents' resolution.

    Args:
        conditioning_channels: Channels of the pictures.
        conditioning_embedding_channels: Channels of the features: the denoiser's first width.
        block_out_channels: Widths; each step to the next one halves the picture.
    """

    @register_to_config
    def __init__(
        self,
        conditioning_channels: int = 3,
        conditioning_embedding_channels: int = 32,
        block_out_channels: tuple[int, ...] = (16, 32),
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
        return self.conv_out(hidden)


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
