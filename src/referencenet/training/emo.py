"""The three stages in which EMO is trained (arXiv 2402.17485, section 3.4): image, video, speed.

First the reference is learned on single frames, then movement and sound on clips, then head speed, without the sound:
both go with how the head moves, and trained together the sound would lose its grip. Which drops there are and how often
is a choice of ours. Letters: b samples, f frames, n motion frames, k frames that are seen, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from referencenet.links.attach import attach, write
from referencenet.networks.audio_attention import Held
from referencenet.networks.neighbourhood import neighbours
from referencenet.networks.portrait_layers import with_positions
from referencenet.networks.projected_tokens import AudioProjection
from referencenet.training.recipe import choose_trained, trained_parameters

Stage = Literal["image", "video", "speed"]


class Learns(NamedTuple):
    """Patterns of the parameters that a stage trains, and of those among them that it does not."""

    train: tuple[str, ...]
    freeze: tuple[str, ...] = ()


HEARING = r"unet\..*\.(audio_attn|norm_audio)\..*"
FOLLOWING = r"unet\..*\.(speed_attn|norm_speed)\..*"
MOTION = r"unet\..*\.motion_modules\..*"

LEARNS: Mapping[Stage, Learns] = {
    "image": Learns(train=(r"unet\..*", r"reference_unet\..*", r"face_locator\..*"), freeze=(HEARING, MOTION)),
    "video": Learns(train=(HEARING, MOTION, r"audio_projection\..*"), freeze=(FOLLOWING,)),
    "speed": Learns(train=(MOTION, r"speed_projection\..*")),
}
"""Stage to what it trains."""

DROPS: Mapping[str, float] = {"reference": 0.05, "sound": 0.05, "motion": 0.2}
"""How often a sample goes without; without motion frames a clip is like a film's first."""


@dataclass(frozen=True, kw_only=True)
class Clips:
    """A batch of clips.

    Attributes:
        latents: Of the frames that are learned, (b, 4, f, h, w); f is 1 in the first stage.
        reference: Of another frame of the same person, (b, 4, h, w).
        place: Where the face is in the clip, (b, 1, H, W) of 0 and 1.
        motion: Latents of the frames before, (b, n, 4, h, w); None in the first stage.
        sound: Speech features of the frames that are seen, (b, k, layers, channels); None in the first stage.
        speeds: Of the head in the same frames, (b, k), in degrees a frame; None before the last stage.
        start: Which of the frames that are seen is the first one that is learned.
    """

    latents: Tensor
    reference: Tensor
    place: Tensor
    motion: Tensor | None = None
    sound: Tensor | None = None
    speeds: Tensor | None = None
    start: int = 0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """For each sample whether it has its reference, its sound and its motion frames, (b,) of bool each."""

    reference: Tensor
    sound: Tensor
    motion: Tensor

    @classmethod
    def drawn(cls, samples: int, generator: torch.Generator | None = None) -> Kept:
        """Drawn by `DROPS`."""
        return cls(**{name: torch.rand(samples, generator=generator) >= share for name, share in DROPS.items()})

    @classmethod
    def all(cls, samples: int) -> Kept:
        """Nothing is dropped."""
        return cls(**{name: torch.ones(samples, dtype=torch.bool) for name in DROPS})


def learning(pipe: Any, stage: Stage) -> dict[str, nn.Parameter]:
    """Let the parameters of a stage learn, and no others.

    Args:
        pipe: An EMOPipeline.
        stage: "image", "video" or "speed".

    Returns:
        Those that learn, by component and name.

    Raises:
        ValueError: If there is no such stage.
    """
    if stage not in get_args(Stage):
        raise ValueError(f"the stage is {stage!r}; expected one of {list(get_args(Stage))}.")
    return trained_parameters(choose_trained(pipe.components, *LEARNS[stage]))


def clip_loss(
    pipe: Any, clips: Clips, stage: Stage, *, noise: Tensor, timesteps: Tensor, kept: Kept | None = None
) -> Tensor:
    """Mean squared error over the frames that are learned, where no block is checkpointed; see `clip_prediction`.

    Args:
        pipe: An EMOPipeline, after `learning`.
        clips: The batch.
        stage: Decides which layers there are.
        noise: (b, 4, f, h, w).
        timesteps: (b,).
        kept: What each sample has; None: everything.

    Returns:
        A scalar, of the noise or, where the scheduler predicts velocity, of that.

    Raises:
        ValueError: If the batch lacks what the stage learns from.
    """
    with clip_prediction(pipe, clips, stage, noise=noise, timesteps=timesteps, kept=kept) as (predicted, target):
        return (predicted.float() - target.float()).square().mean()


@contextmanager
def clip_prediction(
    pipe: Any, clips: Clips, stage: Stage, *, noise: Tensor, timesteps: Tensor, kept: Kept | None = None
) -> Generator[tuple[Tensor, Tensor]]:
    """What the denoiser predicts of the frames that are learned, and what it should; motion frames are never predicted.

    Args:
        pipe: An EMOPipeline, after `learning`.
        clips: The batch.
        stage: Decides which layers there are.
        noise: (b, 4, f, h, w).
        timesteps: (b,).
        kept: What each sample has; None: everything.

    Yields:
        Both, (b, 4, f, h, w): the noise or, where the scheduler predicts velocity, that. `backward` runs inside.

    Raises:
        ValueError: If the batch lacks what the stage learns from.
    """
    needed = {"image": (), "video": ("motion", "sound"), "speed": ("motion", "sound", "speeds")}[stage]
    missing = [name for name in needed if getattr(clips, name) is None]
    if missing:
        raise ValueError(f"the stage {stage!r} also needs {' and '.join(missing)}; give them in the clips.")
    latents = clips.latents
    samples, frames = latents.shape[0], latents.shape[2]
    kept = kept or Kept.all(samples)
    scheduler, unet = pipe.scheduler, pipe.unet
    place = pipe.face_locator(clips.place).unsqueeze(2)  # (b, width, 1, h, w)
    noisy, condition = scheduler.add_noise(latents, noise, timesteps), None
    if pipe.config.face_locator_target == "latent":
        noisy = noisy + place
    else:
        condition = place.expand(-1, -1, frames, -1, -1)
    told: dict[str, Any] = {}
    if stage != "image":
        told["audio"] = [Held(_sound(pipe, clips, frames) * _rows(kept.sound.repeat_interleave(frames), latents))]
        told["motion"] = [_motion(pipe, clips, kept)]
    if stage == "speed":
        told["speed"] = Held(with_positions(_speeds(pipe, clips, frames), pipe.config.motion_frames))
    bank = write(pipe.reference_unet, clips.reference, timestep=0, encoder_hidden_states=None, links=[pipe.link])
    is_velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
    with attach(unet, [pipe.link]) as link, link.reading(bank, weights=kept.reference.float().tolist()):
        predicted = unet(
            noisy, timesteps, temporal=stage != "image", condition=condition, **told, return_dict=False
        )[0]  # fmt: skip
        yield predicted, target


def _motion(pipe: Any, clips: Clips, kept: Kept) -> dict[str, Tensor]:
    """Maps of the motion frames by place, (b, n, h w, c); zeros where a sample goes without."""
    assert clips.motion is not None
    with torch.no_grad():  # the reference net has learned in the first stage
        maps = pipe.reference_unet.feature_maps(clips.motion)
    return {place: features * _rows(kept.motion, features).unsqueeze(-1) for place, features in maps.items()}


def _sound(pipe: Any, clips: Clips, frames: int) -> Tensor:
    """Tokens of all samples' frames, (b f, t, c)."""
    assert clips.sound is not None
    projection = pipe.audio_projection
    around = neighbours(clips.start, clips.start + frames, projection.config.window, clips.sound.shape[1])
    if isinstance(projection, AudioProjection):
        return torch.cat([projection(each[around]) for each in clips.sound])
    return torch.cat([projection(each, around) for each in clips.sound])


def _speeds(pipe: Any, clips: Clips, frames: int) -> Tensor:
    """Features of all samples' frames, (b, f, c)."""
    assert clips.speeds is not None
    projection = pipe.speed_projection
    around = neighbours(clips.start, clips.start + frames, projection.config.window, clips.speeds.shape[1])
    return torch.stack([projection(each, around) for each in clips.speeds])


def _rows(kept: Tensor, like: Tensor) -> Tensor:
    """(rows,) of bool as factors (rows, 1, 1)."""
    return kept.to(like).view(-1, 1, 1)
