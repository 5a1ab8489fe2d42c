"""What a denoiser is trained on: the noise, or the velocity with the weights of Animate Anyone's published training.

Those weights are min(SNR + 1, gamma) / (SNR + 1): the + 1 of velocity prediction stands inside the minimum as well,
unlike in Hang et al. 2023 and current diffusers. Letters: b samples, c channels, f frames, (h, w) latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

TRAINING_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",  # as published: the scripts force it whatever the configuration says
    "steps_offset": 1,
    "clip_sample": False,
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "prediction_type": "v_prediction",
}
"""DDIM as both published training stages use it."""


@dataclass(frozen=True, kw_only=True)
class NoiseLoss:
    """Mean squared error of the predicted noise; all samples count alike.

    Attributes:
        scheduler: Of the noise.
        noise_offset: Share of noise that is one number per sample and channel.
    """

    scheduler: Any
    noise_offset: float = 0.0

    def offset(self, noise: Tensor, offset: Tensor) -> Tensor:
        """Noise (b, c, f, h, w) with the offset (b, c, 1, 1, 1) added; pictures likewise, without the frames."""
        return noise + self.noise_offset * offset

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser is given, (b, c, f, h, w); timesteps (b,), or (b f,) where every frame has its own."""
        added = self.scheduler.add_noise(*(by_timestep(x, timesteps) for x in (latents, noise)), timesteps)
        return _as_clips(added, latents)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:  # noqa: ARG002 - as its relatives
        """What it shall predict, of the latents' shape."""
        return noise

    def weights(self, timesteps: Tensor) -> Tensor:  # noqa: ARG002 - as its relatives
        """How much each sample counts, (b,) or (): alike."""
        return torch.ones(())

    def errors(self, prediction: Tensor, target: Tensor, places: Tensor | None = None) -> Tensor:
        """Mean squared error of each row, (b,); `places` (b, 1, ...) says how much each place counts."""
        squares = (prediction.float() - target.float()).square()
        if places is None:
            return squares.flatten(1).mean(1)
        counted = places.expand_as(squares)
        return (squares * counted).flatten(1).sum(1) / counted.flatten(1).sum(1)

    def __call__(
        self, prediction: Tensor, target: Tensor, timesteps: Tensor, places: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """The loss, a scalar."""
        errors = self.errors(*(by_timestep(x, timesteps) for x in (prediction, target)), places)
        return (self.weights(timesteps).to(prediction.device) * errors).mean()


@dataclass(frozen=True, kw_only=True)
class VelocityLoss(NoiseLoss):
    """Weighted mean squared error of the predicted velocity.

    Attributes:
        scheduler: Of the noise.
        noise_offset: Published: 0.05.
        snr_gamma: Of the weights; published: 5; 0: all steps count alike.
    """

    noise_offset: float = 0.05
    snr_gamma: float = 5.0

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The velocity, of the latents' shape."""
        found = self.scheduler.get_velocity(*(by_timestep(x, timesteps) for x in (latents, noise)), timesteps)
        return _as_clips(found, latents)

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio of each timestep: 0 at the last timestep of a schedule with zero terminal SNR."""
        alphas = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        return alphas / (1 - alphas)

    def weights(self, timesteps: Tensor) -> Tensor:
        """How much each sample counts, (b,)."""
        snr = self.snr(timesteps) + 1
        return snr.clamp(max=self.snr_gamma) / snr if self.snr_gamma else torch.ones_like(snr)

    def reduced_first(self, prediction: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        """The loss of Hallo's published second stage: weights are averaged apart from errors, which was no intention.

        Args:
            prediction: (b, c, f, h, w).
            target: Likewise.
            timesteps: (b,).
        """
        return self.weights(timesteps).mean() * self.errors(prediction, target).mean()


def as_velocity(loss: NoiseLoss) -> VelocityLoss:
    """The velocity's loss in the place of another: all steps count alike, unless they were weighted before."""
    if isinstance(loss, VelocityLoss):
        return loss
    return VelocityLoss(
        scheduler=DDIMScheduler(**TRAINING_SCHEDULER), noise_offset=loss.noise_offset, snr_gamma=0.0
    )  # fmt: skip


def by_timestep(x: Tensor, timesteps: Tensor) -> Tensor:
    """A row for each timestep: samples as they are, or frames of clips (b, c, f, h, w) as (b f, c, h, w).

    Args:
        x: Samples.
        timesteps: (b,), or (b f,) where every frame has its own.
    """
    return x if len(timesteps) == len(x) else x.transpose(1, 2).flatten(0, 1)


def _as_clips(rows: Tensor, like: Tensor) -> Tensor:
    """Rows of `by_timestep` in the shape of the samples `like`."""
    return rows if rows.shape == like.shape else rows.unflatten(0, (len(like), -1)).transpose(1, 2)
