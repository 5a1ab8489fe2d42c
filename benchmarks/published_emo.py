"""A step of EMO written plainly after its paper: what ours is measured against, as nothing was published.

What the relatives with published code do is done here as well: the reference's features are repeated over frames, and
their keys and values projected again for every frame, half and step; the unconditional half reads them, and the result
is replaced by nothing; it attends to sound of zero; keys and values of sound and head speed are made at every step.
Letters: f frames, n own tokens, t reference tokens, c channels, (h, w) latents.
"""

from __future__ import annotations

from typing import Any

import torch
from published_animate_anyone import PLAIN, guided
from published_parts import blocks, processed
from torch import Tensor

from referencenet.links.seats import ReferenceAttnProcessor, Slot
from referencenet.networks.audio_attention import Held


class RepeatedReference:
    """Attention of all rows to the reference, then nothing for the first half."""

    def __init__(self, reference: Tensor) -> None:
        self.reference = reference  # (1, t, c)

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any) -> Tensor:
        """(2 f, n, c) to the same."""
        read = PLAIN(attn, hidden_states, self.reference.repeat(len(hidden_states), 1, 1))
        read[: len(read) // 2] = 0
        return read


def step(unet: Any, bank: dict[str, Tensor], given: dict[str, Any], scale: float) -> Tensor:
    """The guided prediction of a clip, (1, 4, f, h, w).

    Args:
        unet: The denoiser.
        bank: Site name to features of the portrait, (1, t, c).
        given: Keys `latents` (1, 4, f, h, w), `timestep`, `place` (1, 4, h, w), `audio` (f, tokens, c), `speed`
            (1, f, c), `motion`: place to (1, n, h w, c).
        scale: Of guidance.
    """
    reading = {
        block.attn2: ReferenceAttnProcessor(Slot(RepeatedReference(bank[f"{name}.attn1"])), PLAIN)
        for name, block in blocks(unet)
    }
    sample = given["latents"] + given["place"].unsqueeze(2)
    with processed(reading):
        halves = unet(
            sample.repeat(2, 1, 1, 1, 1),
            given["timestep"],
            audio=[Held(torch.zeros_like(given["audio"])), Held(given["audio"])],
            motion=[given["motion"]] * 2,
            speed=Held(given["speed"]),
            return_dict=False,
        )[0]
    return guided(halves, scale)
