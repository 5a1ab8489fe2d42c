"""EMO's two networks (arXiv 2402.17485): a reference net without words, and a denoiser that reads, hears and follows.

Both are Stable Diffusion 1.5's UNet. The reference net gives features of the portrait for attention, and of motion
frames its feature maps, which stand before the frames in the temporal layer of the same place. Letters: b samples, p
passes of guidance, f frames, n motion frames, t tokens, c channels, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any

from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_motion_model import UNetMotionOutput
from torch import Tensor, nn

from referencenet.links.offloading import rests_in_groups, send_back
from referencenet.links.writing import WriteDone
from referencenet.networks.audio_attention import Held
from referencenet.networks.audio_unet import Motion
from referencenet.networks.motion import SpatioTemporalUNet
from referencenet.networks.portrait_layers import PortraitBlock, PortraitTold, SpeedBlock, TemporalLayer
from referencenet.networks.reference_unet import ReferenceUNet


class PortraitReferenceUNet(ReferenceUNet):
    """Stable Diffusion's UNet without cross-attention and without an output head.

    Args:
        args: As UNet2DConditionModel.
        kwargs: Likewise.
    """

    @wraps(UNet2DConditionModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        super().__init__(*args, **kwargs)
        for module in self.modules():
            if isinstance(module, BasicTransformerBlock):
                module.norm2 = module.attn2 = None  # pyright: ignore[reportAttributeAccessIssue]

    def feature_maps(self, latents: Tensor, timestep: int = 0) -> dict[str, Tensor]:
        """Features of motion frames at every place of a temporal layer; the pass ends behind the last one.

        Args:
            latents: Clean, (b, n, 4, h, w).
            timestep: Which the network is told.

        Returns:
            Place to features, (b, n, h w, c).
        """
        found: dict[str, Tensor] = {}
        places = list(map_places(self))

        def keep(place: str, _module: nn.Module, _args: Any, output: Any) -> None:
            features = output if isinstance(output, Tensor) else output[0]
            found[place] = features.flatten(2).transpose(1, 2).unflatten(0, latents.shape[:2])
            if place == places[-1]:
                raise WriteDone

        with ExitStack() as undo:
            for place in places:
                undo.callback(self.get_submodule(place).register_forward_hook(partial(keep, place)).remove)
            try:
                self(latents.flatten(0, 1), timestep, None)
            except WriteDone:
                send_back(self)
        return found


def map_places(unet: Any) -> dict[str, tuple[int, int]]:
    """What a temporal layer follows, in order of a pass: the layer's attention or else its ResNet.

    Returns:
        Name to level and channels.
    """
    widths = unet.config["block_out_channels"]
    last = len(widths) - 1
    blocks = [(f"down_blocks.{i}", block, i) for i, block in enumerate(unet.down_blocks)]
    blocks.append(("mid_block", unet.mid_block, last))
    blocks += [(f"up_blocks.{i}", block, last - i) for i, block in enumerate(unet.up_blocks)]
    found: dict[str, tuple[int, int]] = {}
    for name, block, level in blocks:
        kind = "attentions" if hasattr(block, "attentions") else "resnets"
        found |= {f"{name}.{kind}.{i}": (level, widths[level]) for i in range(len(getattr(block, kind)))}
    return found


class PortraitUNet(SpatioTemporalUNet, ModelMixin):  # diffusers loads a component whose file names ModelMixin
    """The denoiser.

    Args:
        audio_cross_attention_dim: Channels of the sound's tokens.
        speed_cross_attention_dim: Channels of the speed's features.
        config: As UNetMotionModel.
    """

    _repeated_blocks = ["PortraitBlock"]
    _supports_gradient_checkpointing = False  # recomputed layers would not know what they were told

    def __init__(
        self, audio_cross_attention_dim: int = 768, speed_cross_attention_dim: int = 768, **config: Any
    ) -> None:
        super().__init__(**config)
        channels = {"audio_cross_attention_dim": audio_cross_attention_dim}
        self.register_to_config(**channels, speed_cross_attention_dim=speed_cross_attention_dim)
        self.told = PortraitTold()
        self.places = map_places(self)
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            for transformer in getattr(block, "attentions", ()):
                transformer.transformer_blocks = nn.ModuleList(
                    PortraitBlock(former.dim, former.num_attention_heads, audio_cross_attention_dim, self.told)
                    for former in transformer.transformer_blocks
                )
        for place, (_, width) in self.places.items():
            block, _, i = place.rpartition(".")
            self.get_submodule(block.rpartition(".")[0]).motion_modules[int(i)] = TemporalLayer(  # pyright: ignore
                self.told, place, channels=width, heads=self.config.motion_num_attention_heads,
                positions=self.config.motion_max_seq_length, speed_channels=speed_cross_attention_dim,
            )  # fmt: skip

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        """The configuration's keys: ours and those of the class above."""
        return SpatioTemporalUNet._get_init_keys(SpatioTemporalUNet) | SpatioTemporalUNet._get_init_keys(input_class)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        sample: Tensor,
        timestep: Tensor | float,
        *,
        audio: Sequence[Held | None] = (),
        motion: Motion = (),
        speed: Held | None = None,
        temporal: bool = True,
        condition: Tensor | None = None,
        **unet_kwargs: Any,
    ) -> UNetMotionOutput | tuple[Tensor]:
        """Predict.

        Args:
            sample: Noisy latents (p b, c, f, h, w), with the face's place added.
            timestep: A number, or a tensor of one or p b.
            audio: For each pass its sound, (f or b f, t, c); None: silence; empty: without audio layers.
            motion: For each pass features of the motion frames by place; empty: there are none.
            speed: Of the head, with positions, (1 or b, f, c); None: without speed layers.
            temporal: Whether there are temporal layers; False: each frame by itself, as in the first stage of training.
            condition: Features added after the first convolution, (p b, first width, f, h, w).
            unet_kwargs: Further arguments of UNetMotionModel.

        Returns:
            The prediction (p b, c, f, h, w), in an output object or, with return_dict=False, a tuple.

        Raises:
            ValueError: If sound or speed are of another number of frames.
        """
        rows, frames = sample.shape[0], sample.shape[2]
        counts = {held.tokens.shape[0] for held in audio if held is not None}
        if any(count not in (frames, rows // len(audio) * frames) for count in counts):
            raise ValueError(f"the sound has {sorted(counts)} rows for films of {frames} frames; give one for each.")
        if speed is not None and speed.tokens.shape[1] != frames:
            raise ValueError(f"there are speeds of {speed.tokens.shape[1]} frames for films of {frames}.")
        if not rests_in_groups(self):
            self._hold(sample, audio, speed)
        told = self.told
        try:
            told.audio, told.motion, told.speed = audio, motion, speed
            told.temporal, told.rows = temporal, rows
            nothing = sample.new_zeros(rows, 1, 1)  # in the place of words, which no layer reads
            return super().forward(sample, timestep, nothing, condition=condition, **unet_kwargs)
        finally:
            told.audio, told.motion, told.speed, told.temporal = (), (), None, True

    def _hold(self, sample: Tensor, audio: Sequence[Held | None], speed: Held | None) -> None:
        """Make the keys and values of sound and speed that are not made yet."""
        modules = list(self.modules())
        hearing: list[Attention] = [module.audio_attn for module in modules if isinstance(module, PortraitBlock)]
        following: list[Attention] = [module.speed_attn for module in modules if isinstance(module, SpeedBlock)]
        for held in audio:
            if held is not None:
                held.hold(hearing, sample)
        if speed is not None:
            speed.hold(following, sample)

    def still(self, motion_frames: int, like: Tensor) -> dict[str, Tensor]:
        """Motion features of zero, from which a film's first clip begins; they take no memory.

        Args:
            motion_frames: n.
            like: Of the latents' size, on the device where the denoiser computes, (b, channels, h, w).

        Returns:
            Place to (1, n, h w, c).
        """
        sizes = [tuple(like.shape[2:])]
        for _ in self.config.block_out_channels:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        nothing = like.new_zeros(1)
        return {
            place: nothing.expand(1, motion_frames, sizes[level][0] * sizes[level][1], width)
            for place, (level, width) in self.places.items()
        }
