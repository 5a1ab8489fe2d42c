"""A stage of a published training as a value: what learns, from what loss, and what samples go without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from diffusers import DDIMScheduler, DDPMScheduler

from referencenet.networks.layout import SD15_SCHEDULE
from referencenet.training.drops import Drop
from referencenet.training.losses import TRAINING_SCHEDULER, NoiseLoss, VelocityLoss


def velocity_loss() -> VelocityLoss:
    """Animate Anyone's, AniPortrait's and Hallo's."""
    return VelocityLoss(scheduler=DDIMScheduler(**TRAINING_SCHEDULER))


def noise_loss(kind: Any = DDPMScheduler, **settings: Any) -> NoiseLoss:
    """Plain mean squared error of the noise, on a schedule of so many settings."""
    return NoiseLoss(scheduler=kind(**settings))


sd_noise_loss = partial(noise_loss, DDIMScheduler, **SD15_SCHEDULE)
"""Mean squared error of the noise on Stable Diffusion 1.5's schedule."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage.

    Attributes:
        train: Regular expressions of `component.parameter` that learn; `<last>` stands for the number of the writer's
            last block, which is 3 of Stable Diffusion 1.5.
        freeze: Of those, which do not.
        loss: Makes the loss.
        drops: By name.
        frames: Of a clip; 0: pictures.
        absent: Names of conditions that take no part.
        temporal: Whether motion modules take part; a stage of single frames goes without.
        needs: Fields of a sample that it learns from.
        source: Where its values come from, and which are ours.
    """

    train: tuple[str, ...]
    freeze: tuple[str, ...] = ()
    loss: Callable[[], NoiseLoss] = sd_noise_loss
    drops: Mapping[str, Drop] = field(default_factory=dict[str, Drop])
    frames: int = 0
    absent: tuple[str, ...] = ()
    temporal: bool = True
    needs: tuple[str, ...]
    source: str
