"""The arms of the comparison of links: one way each by which a denoiser reads a reference, and nothing else changed.

Every arm starts with the same neutral base. Its writer is a copy of that base; its denoiser is that base too, with new
layers where the link needs some: copies of the layers beside them, whose output projection is zero, so that they add
nothing at first. Attention is linked in the middle and up blocks in all arms. Letters: b references, r rows, r / b of
which read each reference, t tokens, c channels, (h, w) latents.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from referencenet.links import (
    AdaIN,
    Added,
    AdditiveAttention,
    Concat,
    Instead,
    Kind,
    ReferenceAttention,
    ReferenceBank,
    Second,
    attach,
    write,
)
from referencenet.links.sites import MID_UP
from referencenet.networks.additive_unet import AdditiveUNet
from referencenet.networks.image_prompt import ImagePromptResampler, ImagePromptUNet, with_image_prompt

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Noisy latents (r, 4, h, w), timesteps (r,) and words (r, tokens, c) to the velocity, of the latents' shape."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """References as a writer is shown them.

    Attributes:
        latents: (b, 4, h, w), clean.
        silence: The empty prompt, (1, tokens, c).
        figure: (b, 1, H, W) pixels, 1 where somebody stands.
    """

    latents: Tensor
    silence: Tensor
    figure: Tensor


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to read.

    Attributes:
        title: In the page's tables.
        rule: What a site computes.
        example: A published system that reads so.
        denoiser: Makes the denoiser of the base.
        read: The link of the denoiser; None: it has none.
        written: The link of the writer; None: there is no writer.
        masked: Whether the writer's inputs are masked by where somebody stands.
        resampled: Whether what was written becomes a few tokens of an image prompt.
    """

    title: str
    rule: str
    example: str
    denoiser: Callable[[UNet2DConditionModel], UNet2DConditionModel] = copy.deepcopy
    read: Kind | None = None
    written: Kind | None = None
    masked: bool = False
    resampled: bool = False

    def networks(self, base: UNet2DConditionModel) -> dict[str, nn.Module]:
        """All that learns, by name: the base stays as it is."""
        found: dict[str, nn.Module] = {"unet": self.denoiser(base)}
        if self.written is not None:
            found["writer"] = copy.deepcopy(base)
        if self.resampled:
            found["resampler"] = resampler_of(base)
        return found

    def write(self, networks: Mapping[str, nn.Module], shown: Shown) -> ReferenceBank:
        """What the writer leaves of references, b rows."""
        assert self.written is not None
        silence = shown.silence.expand(len(shown.latents), -1, -1)
        bank = write(networks["writer"], shown.latents, encoder_hidden_states=silence, links=[self.written])
        return bank.masked(shown.figure) if self.masked else bank

    @contextmanager
    def linked(self, networks: Mapping[str, nn.Module], shown: Shown, reads: Sequence[float]) -> Generator[Predict]:
        """Inside, the denoiser predicts by the references.

        Args:
            networks: As `networks` made them.
            shown: The references.
            reads: Of each of r rows, whether it reads, 1 or 0. Row i reads reference i * b // r.
        """
        unet = networks["unet"]

        def plain(noised: Tensor, timestep: Tensor, words: Tensor) -> Tensor:
            return unet(noised, timestep, words).sample

        if self.written is None:
            yield plain
            return
        bank = self.write(networks, shown)
        if self.read is not None:
            with attach(unet, [self.read]) as link, link.reading(bank, weights=reads):
                yield plain
            return
        (states,) = bank.hidden.values()
        tokens: Tensor = networks["resampler"](states)  # (b, t, c)
        readable = tokens.new_tensor(reads).view(-1, 1, 1)
        tokens = tokens.repeat_interleave(len(reads) // len(tokens), 0) * readable  # (r, t, c); zeros add nothing

        def prompted(noised: Tensor, timestep: Tensor, words: Tensor) -> Tensor:
            return unet(noised, timestep, with_image_prompt(words.to(tokens), tokens)).sample

        yield prompted


def with_second(base: UNet2DConditionModel) -> AdditiveUNet:
    """The base with a second self-attention in every block of its middle and up blocks."""
    unet = _like(AdditiveUNet, base)
    for attn in unet.modules():
        if isinstance(attn, AdditiveAttention):
            own = {name: value for name, value in attn.state_dict().items() if not name.startswith("reference.")}
            attn.reference.load_state_dict(own)
            _silence(attn.reference)
    return unet


def with_replaced(base: UNet2DConditionModel) -> UNet2DConditionModel:
    """The base whose middle and up blocks have attention to a reference where they had attention to words."""
    unet = copy.deepcopy(base)
    for stage in (unet.mid_block, unet.up_blocks):
        for block in stage.modules():
            if isinstance(block, BasicTransformerBlock):
                attn = block.attn1
                block.attn2 = ReferenceAttention(
                    query_dim=attn.query_dim,
                    cross_attention_dim=attn.query_dim,
                    heads=attn.heads,
                    dim_head=attn.inner_dim // attn.heads,
                    out_bias=True,
                )
                block.attn2.load_state_dict(attn.state_dict())
                _silence(block.attn2)
    return unet


def with_prompt(base: UNet2DConditionModel) -> ImagePromptUNet:
    """The base with attention to an image prompt beside every attention to words."""
    unet = _like(ImagePromptUNet, base)
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            projections = block.attn2.processor
            with torch.no_grad():
                projections.to_k_ip[0].weight.copy_(block.attn2.to_k.weight)
                projections.to_v_ip[0].weight.zero_()
    return unet


def resampler_of(base: UNet2DConditionModel) -> ImagePromptResampler:
    """From the tokens of the writer's middle block to as many of an image prompt."""
    width, heads = base.config.block_out_channels[-1], 3
    return ImagePromptResampler(
        embed_dims=width,
        output_dims=base.config.cross_attention_dim,
        hidden_dims=width,
        depth=2,
        dim_head=width // heads,
        heads=heads,
        num_queries=16,
        ffn_ratio=2,
    )


def _like(kind: Any, base: UNet2DConditionModel) -> Any:
    """A UNet of another kind with the base's weights; those that the base lacks are new."""
    unet = kind.from_config(base.config)
    lacking = unet.load_state_dict(base.state_dict(), strict=False)
    assert not lacking.unexpected_keys, lacking.unexpected_keys
    return unet


def _silence(attn: nn.Module) -> None:
    """Let an attention add nothing."""
    with torch.no_grad():
        for parameter in attn.to_out[0].parameters():
            parameter.zero_()


ARMS: Mapping[str, Arm] = {
    "none": Arm(title="none", rule="own attention alone; words that do not tell who", example="the base"),
    "concat": Arm(
        title="concat",
        rule="attention over [own; reference]",
        example="Animate Anyone",
        read=Concat(stages=MID_UP),
        written=Concat(stages=MID_UP),
    ),
    "masked": Arm(
        title="masked concat",
        rule="the same, inputs outside of the figure are zeros",
        example="Parts2Whole",
        read=Concat(stages=MID_UP),
        written=Concat(stages=MID_UP),
        masked=True,
    ),
    "added": Arm(
        title="additive, same weights",
        rule="own attention + attention over reference",
        example="StableGarment",
        read=Added(stages=MID_UP),
        written=Added(stages=MID_UP),
    ),
    "second": Arm(
        title="additive, own weights",
        rule="own attention + second attention over [own; reference]",
        example="FlashFace",
        denoiser=with_second,
        read=Second(),
        written=Concat(stages=MID_UP),
    ),
    "replace": Arm(
        title="replace",
        rule="attention over reference in the place of that over words",
        example="EMO",
        denoiser=with_replaced,
        read=Instead(),
        written=Instead(),
    ),
    "adain": Arm(
        title="AdaIN",
        rule="features take the reference's mean and variance",
        example="Reference-AdaIN",
        read=AdaIN(),
        written=AdaIN(),
    ),
    "prompt": Arm(
        title="image prompt alone",
        rule="attention over words + attention over 16 tokens of the reference",
        example="IP-Adapter",
        denoiser=with_prompt,
        written=Concat(stages=("mid_block",)),
        resampled=True,
    ),
}
