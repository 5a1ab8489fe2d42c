"""A clip and a step of Hallo the published way, written plainly: what ours is measured against.

As the specification of fudan-generative-vision/hallo counts it: the portrait and the motion frames are written anew for
every clip, each beside both contexts and to the end of the decoder; the face locator runs on every frame of a clip,
which are equal; the bank is repeated over frames, and its keys and values are projected again for every frame and step;
both halves attend to [own; reference], then the unconditional half does so again to itself alone; keys and values of
face and audio are made at every step, and the unconditional half attends to tokens of zero; masks are copied for every
frame. Left out: the autoencoder, which encodes the portrait again for every clip, and the bank's rounding. Letters: f
frames, n motion frames, (h, w) latents, t tokens, c channels.
"""

from __future__ import annotations

from typing import Any

import torch
from published_animate_anyone import PLAIN, guided
from published_parts import blocks, features, processed
from torch import Tensor

from referencenet.networks.audio_attention import Heard, Held

Bank = dict[str, Tensor]
"""Site name to features of portrait and motion frames of both halves, (2 (1 + n), t, c)."""


class TiledAttention:
    """Attention over [own; reference] for all rows, then over the own tokens for the first half."""

    def __init__(self, reference: Tensor) -> None:
        self.reference = reference  # (2, t, c)

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """(2 f, n, c) to the same; the two references take turns over the rows."""
        repeated = self.reference.repeat(hidden_states.shape[0] // 2, 1, 1)
        read = PLAIN(attn, hidden_states, torch.cat([hidden_states, repeated], dim=1))
        own = hidden_states[: hidden_states.shape[0] // 2]
        read[: own.shape[0]] = PLAIN(attn, own, own)
        return read


def write(reference_unet: Any, images: Tensor, contexts: Tensor) -> Bank:
    """The features of a clip's images (1 + n, 4, h, w), portrait first, beside contexts (2, tokens, c) in turn."""
    rows, count = images.repeat(2, 1, 1, 1), len(images)
    with processed({block.attn2: PLAIN for _, block in blocks(reference_unet)}):
        found = features(
            lambda: reference_unet(rows, 0, encoder_hidden_states=contexts.repeat(count, 1, 1)), blocks(reference_unet)
        )
    return {f"{name}.attn1": feature for (name, _), feature in zip(blocks(reference_unet), found, strict=True)}


def locate(locator: Any, place: Tensor, frames: int) -> Tensor:
    """The locator's features of the face's place (1, 3, H, W), once for every frame: (1, width, f, h, w)."""
    return locator(place.repeat(frames, 1, 1, 1)).transpose(0, 1).unsqueeze(0)


def step(unet: Any, bank: Bank, located: Tensor, given: dict[str, Any], scale: float) -> Tensor:
    """The guided prediction of a clip, (1, 4, f, h, w).

    Args:
        unet: The denoiser.
        bank: Of the clip's images.
        located: Features of the face's place, (1, width, f, h, w).
        given: Keys `latents` (1, 4, f, h, w), `timestep`, `faces` (2, tokens, c), of no face first, `audio`
            (f, tokens, c), `masks`: number of tokens to (3, 1, n).
        scale: Of guidance.
    """
    latents, audio = given["latents"], given["audio"]
    frames, found = latents.shape[2], blocks(unet)
    reading: dict[Any, Any] = {}
    motion: list[dict[str, Tensor]] = [{}, {}]
    for name, block in found:
        site = f"{name}.attn1"
        halves = bank[site].chunk(2)  # (1 + n, t, c) each
        reading[block.attn1] = TiledAttention(torch.stack([half[0] for half in halves]))
        for half, rows in zip(motion, halves, strict=True):
            half[site] = rows[1:].unsqueeze(0)
    heard = Heard(
        tokens=[Held(torch.zeros_like(audio)), Held(audio)],
        masks={count: mask.repeat(1, frames, 1) for count, mask in given["masks"].items()},
    )
    with processed(reading | {block.attn2: PLAIN for _, block in found}):
        halves = unet(
            latents.repeat(2, 1, 1, 1, 1),
            given["timestep"],
            [Held(face) for face in given["faces"].split(1)],
            heard=heard,
            motion=motion,
            condition=torch.cat([torch.zeros_like(located), located]),
            return_dict=False,
        )[0]
    return guided(halves, scale)
