"""Views of one person from several cameras, in groups (DiffPortrait3D): what enters the denoiser, and what begins.

Views are the frames of a film. Letters: b films, v views of the film, (h, w) latents, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from referencenet.pipelines.balance import Poses
from referencenet.pipelines.encoders import encode_pixels
from referencenet.pipelines.prediction import Call
from referencenet.pipelines.spec import Condition, UNetCall

Start = Literal["reference", "noise"]
"""What views without proxies begin with, under noise: the reference, or nothing."""

CLEAN = "reference_latents"
"""Name in a bank's context of the reference's clean latents (1, 4, h, w)."""


class Cameras(Poses):
    """Residuals of a ControlNet that sees, in [-1, 1], somebody else from the camera of each view."""

    enters = "residuals of a ControlNet on pictures of another person from the target camera, added to the skips"

    def as_seen(self, pictures: Tensor) -> Tensor:
        """Pictures (n, 3, H, W) in [0, 1], brought to [-1, 1]."""
        return pictures * 2 - 1


class MiddleViews(Condition):
    """Whether the middle view module runs: in blind passes, which do not read. Given as whether it runs in all."""

    enters = "keeps the view module of the middle block from running"

    def encode(self, pipe: Any, call: Any) -> tuple[bool, bool]:  # noqa: ARG002
        """Whether it runs in passes that see this, and in blind ones."""
        return call.given[self.name], True

    def seen(self, value: tuple[bool, bool]) -> bool:
        """Whether it runs."""
        return value[0]

    def blank(self, value: tuple[bool, bool]) -> bool:
        """It runs."""
        return value[1]

    def joined(self, values: Sequence[bool], samples: int) -> tuple[bool, ...]:
        """For each group of the batch."""
        return tuple(value for value in values for _ in range(samples))

    def enter(self, call: UNetCall, value: tuple[bool, ...]) -> UNetCall:
        """As the UNet's argument."""
        return call.having(middle=value)


def beginning(pipe: Any, proxies: Tensor | None, start: Start, generator: Any) -> Callable[[Tensor, Call], Tensor]:
    """What makes of the first noise what the first step begins with: 3D-aware noise, as published at timestep 999.

    Args:
        pipe: Whose autoencoder and scheduler.
        proxies: Pictures of the person from each camera (v, 3, H, W) in [0, 1], or their scaled latents (v, 4, h, w).
        start: What is in their place without them.
        generator: Of the draws from the autoencoder's posterior: one, or one per film.
    """

    def begin(noise: Tensor, call: Call) -> Tensor:
        if proxies is not None:
            clean = torch.stack([_latents_of(pipe, proxy[None], generator) for proxy in proxies], dim=2)
        elif start == "noise":
            return noise
        else:
            clean = _reference_of(call).unsqueeze(2)
        alpha = pipe.scheduler.alphas_cumprod[-1].to(noise)
        clean = clean.to(noise) * pipe.scheduler.init_noise_sigma  # (b or 1, 4, v or 1, h, w), as the noise is scaled
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise

    return begin


def _latents_of(pipe: Any, proxy: Tensor, generator: Any) -> Tensor:
    """A draw of one picture's latents (1, 4, h, w), or one per generator; latents as they are."""
    if proxy.shape[1] == pipe.unet.config.in_channels:
        return proxy
    return encode_pixels(pipe, proxy * 2 - 1, generator, sample=True)


def _reference_of(call: Call) -> Tensor:
    """The reference's clean latents (1, 4, h, w).

    Raises:
        ValueError: If they did not travel with its bank.
    """
    if call.shown is not None:
        return call.shown.latents[-1:]
    if CLEAN not in call.kept:
        raise ValueError(
            "this written reference has no clean latents in its context, with which views begin; write it with "
            "DiffPortrait3DPipeline.write, or give proxies or start='noise'."
        )
    return call.kept[CLEAN]
