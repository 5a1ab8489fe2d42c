"""The denoiser of several views at once: Stable Diffusion's UNet with view modules (DiffPortrait3D, Gu et al. 2024).

A view module is AnimateDiff's temporal transformer over the views of a group. Unlike in AnimateDiff one follows every
downsampler as well, two follow every upsampler where none stands before it, and the middle one runs for some samples
only. Letters: b groups, v views in each, c channels, (h, w) latents; inside, views are folded: row = group * v + view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.models.downsampling import Downsample2D
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D, UNetMotionOutput
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from referencenet.networks.motion import FrameGroupNorm, SpatioTemporalUNet


class Told:
    """What a UNet tells its view modules for the length of a forward pass.

    Attributes:
        views: v; None between passes.
        middle: For which groups the middle view module runs; None: for all.
    """

    views: int | None = None
    middle: Sequence[bool] | None = None


class ViewModule(AnimateDiffTransformer3D):
    """A temporal transformer over views, which the UNet counts; every row is normalised by itself.

    Args:
        like: One over frames, whose sizes it takes.
        told: By the UNet.
    """

    def __init__(self, like: AnimateDiffTransformer3D, told: Told) -> None:
        norm, table = like.norm, like.transformer_blocks[0].pos_embed.pe
        super().__init__(
            num_attention_heads=like.num_attention_heads,
            attention_head_dim=like.attention_head_dim,
            in_channels=like.in_channels,
            num_layers=len(like.transformer_blocks),
            norm_num_groups=norm.num_groups,
            positional_embeddings="sinusoidal",
            num_positional_embeddings=table.shape[1],
        )
        self.norm = FrameGroupNorm(norm.num_groups, norm.num_channels, eps=norm.eps)
        self.told = told

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(b v, c, h, w) to the same shape."""
        views = self.told.views
        if views is None:
            raise RuntimeError("this module mixes the views of a group; run it as a part of its UNet.")
        return super().forward(hidden_states, num_frames=views)


class MiddleViewModule(ViewModule):
    """The one in the middle, which runs for some groups only."""

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """(b v, c, h, w) to the same shape."""
        middle = self.told.middle
        if middle is None or all(middle):
            return super().forward(hidden_states)
        if not any(middle):
            return hidden_states
        groups = list(hidden_states.chunk(len(middle)))
        chosen = [i for i, runs in enumerate(middle) if runs]
        mixed = super().forward(torch.cat([groups[i] for i in chosen])).chunk(len(chosen))
        for i, group in zip(chosen, mixed, strict=True):
            groups[i] = group
        return torch.cat(groups)


class NoViewModule(nn.Module):
    """Stands where AnimateDiff has a module and this UNet has none."""

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """(b v, c, h, w) as it is."""
        return hidden_states


class ViewDownsample(Downsample2D):
    """A downsampler with a view module behind it.

    Args:
        like: A downsampler, whose sizes it takes.
        module: The view module.
    """

    def __init__(self, like: Downsample2D, module: ViewModule) -> None:
        super().__init__(like.channels, use_conv=True, out_channels=like.out_channels, padding=like.padding, name="op")
        self.motion_modules = nn.ModuleList([module])

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """(b v, c, h, w) to (b v, c, h / 2, w / 2)."""
        return self.motion_modules[0](super().forward(hidden_states))


class ViewUpsample(Upsample2D):
    """An upsampler with two view modules behind it.

    Args:
        like: An upsampler, whose sizes it takes.
        modules: The view modules.
    """

    def __init__(self, like: Upsample2D, modules: Sequence[ViewModule]) -> None:
        super().__init__(like.channels, use_conv=True, out_channels=like.out_channels)
        self.motion_modules = nn.ModuleList(modules)

    def forward(self, hidden_states: Tensor, output_size: Any = None, *_args: Any, **_kwargs: Any) -> Tensor:
        """(b v, c, h, w) to (b v, c, 2 h, 2 w), or to the size that the skips have."""
        hidden_states = super().forward(hidden_states, output_size)
        for module in self.motion_modules:
            hidden_states = module(hidden_states)
        return hidden_states


class ViewUNet(SpatioTemporalUNet, ModelMixin):  # diffusers loads a component whose file names ModelMixin
    """SpatioTemporalUNet with DiffPortrait3D's view modules in place of AnimateDiff's.

    Args:
        config: As SpatioTemporalUNet.
    """

    _supports_gradient_checkpointing = False  # recomputed view modules would not know the number of views

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.told = Told()
        blocks: list[Any] = [*self.down_blocks, *self.up_blocks]
        for block in blocks:
            block.motion_modules = nn.ModuleList(ViewModule(module, self.told) for module in block.motion_modules)
        for block in self.down_blocks:
            if block.downsamplers is not None:
                module = ViewModule(block.motion_modules[-1], self.told)
                block.downsamplers = nn.ModuleList([ViewDownsample(block.downsamplers[0], module)])
        for block in self.up_blocks:
            if block.upsamplers is not None:
                modules = [ViewModule(block.motion_modules[-1], self.told) for _ in range(2)]
                block.upsamplers = nn.ModuleList([ViewUpsample(block.upsamplers[0], modules)])
                block.motion_modules[-1] = NoViewModule()
        middle: Any = self.mid_block
        middle.motion_modules = nn.ModuleList([MiddleViewModule(middle.motion_modules[0], self.told)])

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:  # noqa: ARG004 - as diffusers calls it
        """The configuration's keys: SpatioTemporalUNet's."""
        return SpatioTemporalUNet._get_init_keys(SpatioTemporalUNet)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        *,
        middle: Sequence[bool] | None = None,
        return_dict: bool = True,
        **unet_kwargs: Any,
    ) -> UNetMotionOutput | tuple[Tensor]:
        """Predict.

        Args:
            sample: Noisy latents (b, c, v, h, w).
            timestep: A number, or a tensor of one, or of b v: every view at its own.
            encoder_hidden_states: (b, tokens, channels), one context for all views of a group, or (b v, tokens,
                channels).
            middle: For which of the b groups the middle view module runs; None: for all.
            return_dict: False gives a tuple.
            unet_kwargs: Further arguments of UNetMotionModel, with rows b v, such as a ControlNet's residuals.

        Returns:
            The prediction (b, c, v, h, w).

        Raises:
            ValueError: If the shapes do not fit.
        """
        groups, views = sample.shape[0], sample.shape[2]
        if middle is not None and len(middle) != groups:
            raise ValueError(f"middle has {len(middle)} entries for {groups} groups of views; give one for each.")
        if encoder_hidden_states.shape[0] == groups:
            encoder_hidden_states = encoder_hidden_states.repeat_interleave(views, dim=0)
        rows = sample.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # (b v, c, 1, h, w): views are told beside
        self.told.views, self.told.middle = views, middle
        try:
            (predicted,) = super().forward(rows, timestep, encoder_hidden_states, return_dict=False, **unet_kwargs)  # pyright: ignore[reportGeneralTypeIssues]
        finally:
            self.told.views = self.told.middle = None
        predicted = predicted.squeeze(2).unflatten(0, (groups, views)).transpose(1, 2)  # (b, c, v, h, w)
        return UNetMotionOutput(sample=predicted) if return_dict else (predicted,)
