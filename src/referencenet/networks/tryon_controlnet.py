"""StableGarment's try-on ControlNet (arXiv 2403.10783) in two parts: what is constant in a call, and the rest.

    h0 = conv_in(noisy latents) + controlnet_cond_embedding(keep mask, DensePose) + conv_in_extra(agnostic latents)

The last two terms depend on neither step nor prompt. `TryOnGuider` computes their sum once; `FeatureControlNet` is
diffusers' ControlNetModel that takes it in the pictures' place. Published as one file. Letters: b batch, (h, w)
latents, (H, W) pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import wraps
from typing import Any

from diffusers import ConfigMixin, ControlNetModel, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import Tensor, nn

from referencenet.networks.level_controlnet import LevelControlNet


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place of (b, c, h, w)."""

    def forward(self, input: Tensor) -> Tensor:
        """(b, c, h, w) to the same."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class TryOnGuider(ModelMixin, ConfigMixin):
    """Keep mask, DensePose and clothing-agnostic person to features behind a ControlNet's first convolution.

    Args:
        in_channels: Of the latents.
        conditioning_channels: Of mask and DensePose.
        width: Of the ControlNet's first level.
        embedding_widths: Of the convolutions on mask and DensePose, each level half as large as the one before.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        conditioning_channels: int = 4,
        width: int = 320,
        embedding_widths: tuple[int, ...] = (16, 32, 96, 256),
    ) -> None:
        super().__init__()
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(
            width, block_out_channels=embedding_widths, conditioning_channels=conditioning_channels
        )
        last = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]
        self.conv_in_extra = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), ChannelNorm(width, eps=1e-6), last
        )

    def forward(self, condition: Tensor, agnostic_latents: Tensor) -> Tensor:
        """The features.

        Args:
            condition: Keep mask (1 = keep) and DensePose in [0, 1], (b, 4, H, W).
            agnostic_latents: Scaled latents of the person without the garment, (b, 4, h, w).

        Returns:
            (b, width, h, w).
        """
        return self.controlnet_cond_embedding(condition) + self.conv_in_extra(agnostic_latents)


class FeatureControlNet(LevelControlNet, ModelMixin):  # diffusers loads a component whose file names ModelMixin
    """ControlNetModel whose `controlnet_cond` are features (b, width, h, w), ready to be added to its first ones."""

    @wraps(ControlNetModel.__init__)  # the configuration's names are read from the signature
    def __init__(self, *args: Any, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        super().__init__(*args, **kwargs)
        self.controlnet_cond_embedding = nn.Identity()


def build_guider(config: Mapping[str, Any]) -> TryOnGuider:
    """The guider beside a UNet of a configuration, which may say `conditioning_embedding_out_channels`."""
    return TryOnGuider(
        in_channels=config["in_channels"],
        width=config["block_out_channels"][0],
        embedding_widths=tuple(config.get("conditioning_embedding_out_channels", (16, 32, 96, 256))),
    )


def build_controlnet(config: Mapping[str, Any]) -> FeatureControlNet:
    """The ControlNet beside a UNet of a configuration."""
    known = inspect.signature(ControlNetModel.__init__).parameters
    return FeatureControlNet(
        **{name: value for name, value in config.items() if name in known and not name.startswith("_")}
    )
