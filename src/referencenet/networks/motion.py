"""The spatio-temporal denoiser: a Stable Diffusion UNet on frames, with motion modules (AnimateDiff, Guo et al. 2023).

diffusers' UNetMotionModel with what the published systems need beside it: the motion modules' GroupNorm takes its
statistics from each frame alone (diffusers takes them from the whole clip, an error of 14 % with Animate Anyone's
weights), that of ResNets may take them from the whole clip (MagicAnimate; frame by frame the error is 22 %), and
features of a spatial condition may be added after the first convolution. Weights have the same names and shapes.
Letters: b samples, c channels, f frames, (h, w) latents; inside, frames are folded: row = sample * f + frame.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from diffusers import ModelMixin, UNetMotionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D, UNetMotionOutput
from torch import Tensor, nn

from referencenet.networks.single_token import skip_single_tokens

NormSpan = Literal["frame", "clip"]
"""Whether statistics come from each frame by itself or from all frames of a clip together."""


class FrameGroupNorm(nn.GroupNorm):
    """GroupNorm of a clip (b, c, f, h, w) that normalises each frame by itself."""

    def forward(self, hidden_states: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(b, c, f, h, w) to the same shape."""
        frames = hidden_states.transpose(1, 2)  # (b, f, c, h, w)
        return super().forward(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)


class ClipLength:
    """How many frames a clip has, said by a UNet to its norms for the length of a forward pass."""

    frames: int | None = None


class ClipGroupNorm(nn.GroupNorm):
    """GroupNorm of folded frames (b f, c, h, w) that normalises all frames of a clip together.

    Args:
        norm: A norm of frames, whose sizes it takes.
        length: Says how many frames a clip has.
    """

    def __init__(self, norm: nn.GroupNorm, length: ClipLength) -> None:
        super().__init__(norm.num_groups, norm.num_channels, eps=norm.eps, affine=norm.affine)
        self.length = length

    def forward(self, hidden_states: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(b f, c, h, w) to the same shape."""
        frames = self.length.frames
        if frames is None:
            raise RuntimeError("this norm takes its statistics from a clip; run it as a part of its UNet.")
        if frames == 1:
            return super().forward(hidden_states)
        clips = hidden_states.unflatten(0, (-1, frames)).transpose(1, 2)  # (b, c, f, h, w)
        return super().forward(clips).transpose(1, 2).flatten(0, 1)


class AddingConv2d(nn.Conv2d):
    """A convolution whose input may carry its output's addend behind its own channels.

    (b, in + out, h, w) gives conv(first `in` channels) + the last `out` channels; (b, in, h, w) the plain convolution.
    So what is added travels as a value through a forward pass that has no argument for it.
    """

    def forward(self, hidden_states: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Convolve (b, in, h, w), or (b, in + out, h, w), and add."""
        own, addend = hidden_states[:, : self.in_channels], hidden_states[:, self.in_channels :]
        convolved = super().forward(own)
        return convolved + addend if addend.shape[1] else convolved


class SpatioTemporalUNet(UNetMotionModel, ModelMixin):  # diffusers loads a component whose file names ModelMixin
    """UNetMotionModel with a norm span and a place for spatial conditions.

    Args:
        motion_norm: Where the motion modules' GroupNorm takes its statistics from; "frame" in the published systems.
        resnet_norm: Where the GroupNorms of ResNets and of the output do; "clip" in MagicAnimate alone.
        config: As UNetMotionModel.
    """

    _repeated_blocks = ["BasicTransformerBlock"]

    def __init__(self, motion_norm: NormSpan = "frame", resnet_norm: NormSpan = "frame", **config: Any) -> None:
        for name, span in (("motion_norm", motion_norm), ("resnet_norm", resnet_norm)):
            if span not in ("frame", "clip"):
                raise ValueError(f"{name} is {span!r}; expected 'frame' or 'clip'.")
        super().__init__(**config)
        self.register_to_config(motion_norm=motion_norm, resnet_norm=resnet_norm)
        self.length = ClipLength()
        if motion_norm == "frame":
            normalise_frames(self)
        if resnet_norm == "clip":
            normalise_clips(self, self.length)
            self._supports_gradient_checkpointing = False  # recomputed blocks would not know the number of frames
        first = self.conv_in
        self.conv_in = AddingConv2d(first.in_channels, first.out_channels, first.kernel_size, padding=first.padding)  # pyright: ignore[reportArgumentType]
        skip_single_tokens(self)

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        """The configuration's keys: diffusers reads them off the signature, where ours are behind `**config`."""
        inherited = UNetMotionModel if issubclass(input_class, UNetMotionModel) else input_class
        return {*inspect.signature(inherited.__init__).parameters, *inspect.signature(input_class.__init__).parameters}

    @classmethod
    def _get_signature_keys(cls, obj: type) -> tuple[set[str], set[str]]:
        """The same for `from_unet2d`: those that have to be given (none) and those that may be."""
        return set(), cls._get_init_keys(obj) - {"self"}

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        *,
        condition: Tensor | None = None,
        **unet_kwargs: Any,
    ) -> UNetMotionOutput | tuple[Tensor]:
        """Predict.

        Args:
            sample: Noisy latents (b, c, f, h, w).
            timestep: A number, or a tensor of one or b.
            encoder_hidden_states: (b, tokens, channels), one context for all frames of a sample, or (b f, tokens,
                channels).
            condition: Features of a spatial condition, added behind `conv_in`: (b, first width, f, h, w).
            unet_kwargs: Further arguments of UNetMotionModel.

        Returns:
            The prediction (b, c, f, h, w), in an output object or, with return_dict=False, a tuple.

        Raises:
            ValueError: If the shapes do not fit.
        """
        batch, _, frames = sample.shape[:3]
        if condition is not None:
            expected = (batch, self.conv_in.out_channels, *sample.shape[2:])
            if tuple(condition.shape) != expected:
                raise ValueError(
                    f"the condition is {tuple(condition.shape)} for latents {tuple(sample.shape)}; expected "
                    f"{expected}: one feature map per frame at the latents' size."
                )
            sample = torch.cat([sample, condition.to(sample.dtype)], dim=1)
        if encoder_hidden_states.shape[0] != batch * frames:
            if encoder_hidden_states.shape[0] != batch:
                raise ValueError(
                    f"encoder_hidden_states has {encoder_hidden_states.shape[0]} rows for {batch} samples of "
                    f"{frames} frames; expected {batch} or {batch * frames}."
                )
            encoder_hidden_states = encoder_hidden_states.repeat_interleave(frames, dim=0)
        self.length.frames = frames
        try:
            return super().forward(sample, timestep, encoder_hidden_states, **unet_kwargs)  # pyright: ignore[reportReturnType]
        finally:
            self.length.frames = None


def normalise_frames(network: nn.Module) -> None:
    """Make the motion modules of a network under construction normalise each frame by itself."""
    for module in network.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            norm = module.norm
            module.norm = FrameGroupNorm(norm.num_groups, norm.num_channels, eps=norm.eps)


def normalise_clips(unet: nn.Module, length: ClipLength) -> None:
    """Make the ResNets and the output of a UNet under construction normalise all frames of a clip together."""
    for module in list(unet.modules()):
        if isinstance(module, ResnetBlock2D):
            module.norm1, module.norm2 = ClipGroupNorm(module.norm1, length), ClipGroupNorm(module.norm2, length)  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(unet.conv_norm_out, nn.GroupNorm):
        unet.conv_norm_out = ClipGroupNorm(unet.conv_norm_out, length)
