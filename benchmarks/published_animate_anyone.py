"""Animate Anyone the published way, written plainly: what ours is measured against.

As the specification of MooreThreads/Moore-AnimateAnyone (commit a914ef3) counts it: the reference net runs on two rows,
of which one is read, and to its end; the bank is repeated for every frame, and its keys and values are projected again
for every frame, window and step; both halves attend to [own; reference], then the unconditional half does so again to
itself alone and overwrites the first result; cross-attention to a single token computes queries and keys; windows wrap
around the film's end. Left out: the bank's rounding to half precision, which changes numbers and saves nothing.
Letters: f frames, (h, w) latents, r rows = 2 f, n own tokens, t reference tokens, c channels.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from published_parts import blocks, features, processed
from torch import Tensor


class PlainAttention(AttnProcessor2_0):
    """Attention as published: under a name of its own, our networks do not take their shortcut past it."""


PLAIN = PlainAttention()

Bank = list[Tensor]
"""Per block the features of both halves, (2, t, c)."""


class MaskedAttention:
    """Attention over [own; reference] for all rows, then over the own tokens for the first half."""

    def __init__(self, reference: Tensor) -> None:
        self.reference = reference  # (2, t, c)

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """(r, n, c) to the same."""
        frames = hidden_states.shape[0] // self.reference.shape[0]
        repeated = self.reference.repeat_interleave(frames, dim=0)  # (r, t, c)
        read = PLAIN(attn, hidden_states, torch.cat([hidden_states, repeated], dim=1))
        own = hidden_states[: hidden_states.shape[0] // 2]
        read[: own.shape[0]] = PLAIN(attn, own, own)
        return read


def write(reference_unet: Any, latents: Tensor, token: Tensor) -> Bank:
    """The reference's features from a pass of two rows, latents (1, 4, h, w) and CLIP token (1, 1, c), at t = 0."""
    contexts = torch.cat([torch.zeros_like(token), token])
    with processed({block.attn2: PLAIN for _, block in blocks(reference_unet)}):
        return features(
            lambda: reference_unet(latents.repeat(2, 1, 1, 1), 0, encoder_hidden_states=contexts),
            blocks(reference_unet),
        )


def predict(
    denoising_unet: Any, bank: Bank, latents: Tensor, timestep: Any, token: Tensor, pose: Tensor | None = None
) -> Tensor:
    """Both halves' predictions, (2, 4, f, h, w).

    Args:
        denoising_unet: The denoiser.
        bank: What `write` gave.
        latents: (1, 4, f, h, w).
        timestep: Of the step.
        token: The reference's CLIP token, (1, 1, c).
        pose: Features of the pose frames, (1, width, f, h, w); None: they come another way.
    """
    with reading(denoising_unet, bank):
        return halves_of(denoising_unet, latents, timestep, token, pose)


def reading(denoising_unet: Any, bank: Bank) -> AbstractContextManager[None]:
    """Inside, the denoiser reads a bank."""
    found = blocks(denoising_unet)
    processors: dict[Any, Any] = {
        block.attn1: MaskedAttention(feature) for (_, block), feature in zip(found, bank, strict=True)
    }
    return processed(processors | {block.attn2: PLAIN for _, block in found})


def halves_of(denoising_unet: Any, latents: Tensor, timestep: Any, token: Tensor, pose: Tensor | None) -> Tensor:
    """Both halves' predictions of a denoiser that reads, as `predict` has them."""
    rows, poses = (None if part is None else part.repeat(2, 1, 1, 1, 1) for part in (latents, pose))
    contexts = torch.cat([torch.zeros_like(token), token])
    return denoising_unet(rows, timestep, contexts, condition=poses, return_dict=False)[0]


def guided(halves: Tensor, scale: float) -> Tensor:
    """Both halves (2, ...) to the guided prediction (1, ...)."""
    plain, reading = halves.chunk(2)
    return plain + scale * (reading - plain)


def windows(num_frames: int, size: int = 24, overlap: int = 4) -> list[list[int]]:
    """Windows that begin every `size` - `overlap` frames as long as the film lasts, and wrap around its end."""
    if num_frames <= size:
        return [list(range(num_frames))]
    return [[(start + i) % num_frames for i in range(size)] for start in range(0, num_frames, size - overlap)]


def film(
    reference_unet: Any, denoising_unet: Any, scheduler: Any, given: dict[str, Tensor], *, scale: float, window: int
) -> Tensor:
    """A whole film's latents, (1, 4, f, h, w).

    Args:
        reference_unet: The reference net.
        denoising_unet: The denoiser.
        scheduler: With its timesteps set.
        given: Keys `reference` (1, 4, h, w), `token` (1, 1, c), `latents` (1, 4, f, h, w), `pose` (1, width, f, h, w).
        scale: Of guidance.
        window: Frames in a window.
    """
    bank = write(reference_unet, given["reference"], given["token"])
    latents, token = given["latents"], given["token"]
    with reading(denoising_unet, bank):
        for t in scheduler.timesteps:
            total = latents.new_zeros(2, *latents.shape[1:])
            count = latents.new_zeros(latents.shape[2], 1, 1)
            for frames in windows(latents.shape[2], window):
                pose = given["pose"][:, :, frames]
                total[:, :, frames] += halves_of(denoising_unet, latents[:, :, frames], t, token, pose)
                count[frames] += 1
            latents = scheduler.step(guided(total / count, scale), t, latents, return_dict=False)[0]
    return latents
