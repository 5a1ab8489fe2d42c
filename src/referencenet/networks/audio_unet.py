"""Hallo's denoiser: a spatio-temporal UNet that hears audio and begins every clip with motion frames.

Behind each spatial transformer come an `AudioTransformer` and the motion module, in whose sequence features of the
motion frames stand before the frames. Both sit in the place of diffusers' motion module. Blocks without attention have
no motion modules: the published ones are never run. Letters: b samples, p passes of guidance, f frames, n motion
frames, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D, UNetMotionOutput
from torch import Tensor, nn

from referencenet.links.offloading import rests_in_groups
from referencenet.networks.audio_attention import AudioTransformer, Heard, Held, HeldProcessor
from referencenet.networks.motion import SpatioTemporalUNet

NORM_GROUPS = 32
"""Of the published motion modules' GroupNorm, whatever the UNet's; narrower features have the UNet's."""

Motion = Sequence[Mapping[str, Tensor]]
"""For each pass of guidance, site name to features of the motion frames (1 or b, n, h w, c)."""


@dataclass
class Told:
    """What the layers of a pass are told; said by a UNet for the length of a forward pass.

    Attributes:
        heard: For the audio layers; None: they are left out.
        motion: For the motion modules; empty: clips begin with their own frames.
    """

    heard: Heard | None = None
    motion: Motion = field(default_factory=list[Mapping[str, Tensor]])


class ClipLayer(AnimateDiffTransformer3D):
    """What follows a spatial transformer: the audio layer, then attention along time, each frame normalised by itself.

    Args:
        audio: The audio layer; None: there is none.
        told: What the UNet says.
        site: Name of the self-attention of the same layer.
        channels: Of the features.
        heads: Of the attention along time.
        positions: Frames and motion frames at most.
    """

    def __init__(
        self,
        audio: AudioTransformer | None,
        told: Told,
        site: str,
        *,
        channels: int,
        heads: int = 8,
        positions: int = 32,
    ) -> None:
        super().__init__(
            num_attention_heads=heads,
            attention_head_dim=channels // heads,
            in_channels=channels,
            norm_num_groups=NORM_GROUPS if channels >= NORM_GROUPS else audio.norm.num_groups if audio else channels,
            positional_embeddings="sinusoidal",
            num_positional_embeddings=positions,
        )
        self.audio, self.told, self.site = audio, told, site

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,  # noqa: ARG002 - never given
        timestep: None = None,  # noqa: ARG002 - never given
        class_labels: None = None,  # noqa: ARG002 - never given
        num_frames: int = 1,
        cross_attention_kwargs: None = None,  # noqa: ARG002 - never given
    ) -> Tensor:
        """Features (p b f, c, h, w) to the same shape."""
        if self.audio is not None and self.told.heard is not None:
            hidden_states = self.audio(hidden_states, self.told.heard)
        clip = hidden_states.unflatten(0, (-1, num_frames))  # (p b, f, c, h, w)
        if self.told.motion:
            clip = torch.cat([self._before(clip), clip], dim=1)
        samples, length, channels, height, width = clip.shape
        normed = self.norm(clip.flatten(0, 1)).unflatten(0, (samples, length)).permute(0, 3, 4, 1, 2)
        tokens = self.proj_in(normed.reshape(samples * height * width, length, channels))
        for block in self.transformer_blocks:
            tokens = block(tokens)
        tokens = self.proj_out(tokens[:, length - num_frames :])
        moved = tokens.unflatten(0, (samples, height, width)).permute(0, 3, 4, 1, 2).flatten(0, 1)
        return moved + hidden_states

    def _before(self, clip: Tensor) -> Tensor:
        """The motion frames' features for all samples of all passes, (p b, n, c, h, w)."""
        each = clip.shape[0] // len(self.told.motion)
        features = [spread(by_site[self.site], each) for by_site in self.told.motion]
        return torch.cat(features).transpose(2, 3).unflatten(3, clip.shape[3:]).to(clip)


class NoMotion(nn.Module):
    """In the place of a motion module that is never run."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """(b f, c, h, w) as they are."""
        return hidden_states


class AudioUNet(SpatioTemporalUNet, ModelMixin):  # diffusers loads a component whose file names ModelMixin
    """The denoiser.

    Args:
        audio_cross_attention_dim: Channels of the audio's tokens.
        config: As UNetMotionModel.
    """

    def __init__(self, audio_cross_attention_dim: int = 768, **config: Any) -> None:
        super().__init__(**config)
        self.register_to_config(audio_cross_attention_dim=audio_cross_attention_dim)
        self.told = Told()
        widths = self.config.block_out_channels
        layers, heads = self._by_level("layers_per_block"), self._by_level("num_attention_heads")
        for i, block in enumerate(self.down_blocks):
            inner = [widths[max(i - 1, 0)]] + [widths[i]] * (layers[i] - 1)
            self._give_layers(block, f"down_blocks.{i}", inner, heads[i])
        self._give_layers(self.mid_block, "mid_block", [widths[-1]], heads[-1])
        for i, block in enumerate(self.up_blocks):
            level = len(widths) - 1 - i
            finer = widths[max(level - 1, 0)]
            self._give_layers(block, f"up_blocks.{i}", [finer] * (layers[level] + 1), heads[level])
        for name, module in self.named_modules():
            if name.endswith(".attn2") and ".attentions." in name and isinstance(module, Attention):
                module.set_processor(HeldProcessor())  # pyright: ignore[reportArgumentType]

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        """The configuration's keys: ours and those of the class above."""
        return SpatioTemporalUNet._get_init_keys(SpatioTemporalUNet) | SpatioTemporalUNet._get_init_keys(input_class)

    def _by_level(self, setting: str) -> Sequence[int]:
        """A setting that is one number for all levels, or one for each."""
        value = self.config[setting]
        return [value] * len(self.config.block_out_channels) if isinstance(value, int) else value

    def _give_layers(self, block: Any, name: str, inner: Sequence[int], heads: int) -> None:
        """Put our layers in the places of a block's motion modules; a block without attention gets none."""
        config = self.config
        give_layers(
            block, name, inner, self.told, heads=heads, groups=config.norm_num_groups,
            audio_channels=config.audio_cross_attention_dim, motion_heads=config.motion_num_attention_heads,
            positions=config.motion_max_seq_length,
        )  # fmt: skip

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        sample: Tensor,
        timestep: Tensor | float,
        face: Sequence[Held],
        *,
        heard: Heard | None = None,
        motion: Motion = (),
        condition: Tensor | None = None,
        **unet_kwargs: Any,
    ) -> UNetMotionOutput | tuple[Tensor]:
        """Predict.

        Args:
            sample: Noisy latents (p b, c, f, h, w).
            timestep: A number, or a tensor of one or p b.
            face: For each pass its context, (1 or b, tokens, channels).
            heard: What the audio layers are told; None: they are left out, as in the first stage of training.
            motion: For each pass the motion frames' features; empty: none.
            condition: Features of a spatial condition, (p b, first width, f, h, w).
            unet_kwargs: Further arguments of UNetMotionModel.

        Returns:
            The prediction (p b, c, f, h, w), in an output object or, with return_dict=False, a tuple.
        """
        each = sample.shape[0] // len(face)
        readers = {} if torch.is_grad_enabled() or rests_in_groups(self) else self._readers()
        context = torch.cat([spread(held.tokens.to(sample), each) for held in face])
        try:
            self.told.heard, self.told.motion = heard, motion
            self._hold(sample, readers, face, heard)
            for attn, processor in readers.items():
                pairs = [held.pairs[attn] for held in face]
                key, value = (torch.cat([spread(x, each) for x in part]) for part in zip(*pairs, strict=True))
                processor.slot = (key, value)
            return super().forward(sample, timestep, context, condition=condition, **unet_kwargs)
        finally:
            self.told.heard, self.told.motion = None, ()
            for processor in readers.values():
                processor.slot = None

    def enable_gradient_checkpointing(self, *args: Any, **kwargs: Any) -> None:
        """As in diffusers, but for the middle block: its layers would be recomputed when they are told nothing."""
        super().enable_gradient_checkpointing(*args, **kwargs)
        self.mid_block.gradient_checkpointing = False

    def _readers(self) -> dict[Attention, HeldProcessor]:
        """Attentions to the face, and their processors; some may have been replaced."""
        found: dict[Attention, HeldProcessor] = {}
        for name, processor in self.attn_processors.items():
            if isinstance(processor, HeldProcessor):
                attn: Any = self.get_submodule(name.removesuffix(".processor"))
                found[attn] = processor
        return found

    def _hold(
        self, sample: Tensor, readers: Mapping[Attention, HeldProcessor], face: Sequence[Held], heard: Heard | None
    ) -> None:
        """Make keys and values of the tokens that have none yet; not where layers rest in groups, which come late."""
        for held in face:
            held.hold(list(readers), sample)
        if heard is None or rests_in_groups(self):
            return
        listeners: list[Any] = [
            attn for module in self.modules() if isinstance(module, AudioTransformer) for attn in module.attn2
        ]
        for held in heard.tokens:
            if held is not None:
                held.hold(listeners, sample)


def give_layers(
    block: Any, name: str, inner: Sequence[int], told: Told, *, heads: int, groups: int, audio_channels: int,
    motion_heads: int, positions: int,
) -> None:  # fmt: skip
    """Put a `ClipLayer` in the place of each motion module of a block under construction.

    Args:
        block: Of diffusers; without attention its motion modules go, and nothing comes in their place.
        name: Of the block.
        inner: Width of each audio transformer.
        told: What the layers listen to.
        heads: Of the audio transformers.
        groups: Of their GroupNorm.
        audio_channels: Of the audio's tokens.
        motion_heads: Of the attention along time.
        positions: Frames and motion frames at most.
    """
    if not hasattr(block, "attentions"):
        block.motion_modules = nn.ModuleList([NoMotion() for _ in block.motion_modules])
        return
    layers: list[nn.Module] = []
    for i, former in enumerate(block.motion_modules):
        channels = former.in_channels
        audio = AudioTransformer(channels, inner[i], heads=heads, audio_channels=audio_channels, groups=groups)
        site = f"{name}.attentions.{i}.transformer_blocks.0.attn1"
        layers.append(ClipLayer(audio, told, site, channels=channels, heads=motion_heads, positions=positions))
    block.motion_modules = nn.ModuleList(layers)


def spread(value: Tensor, samples: int) -> Tensor:
    """(1 or b, ...) for b samples: (b, ...)."""
    return value if value.shape[0] == samples else value.expand(samples, *value.shape[1:])
