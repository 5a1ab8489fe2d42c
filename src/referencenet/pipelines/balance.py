"""MagicDance's fork of latent diffusion: guidance by reference and hints, or, as `balance`, by the prompt alone.

MagicPose and DiffPortrait3D. By default both passes have the prompt, and the unconditional one sees neither reference
nor hints ("controlnet_important"). With `balance` both passes see both, but writer and ControlNet are told the pass's
own prompt. So the bank has two rows, the negative prompt's first, and there are residuals of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from referencenet.links.bank import ReferenceBank
from referencenet.links.series import BankSeries
from referencenet.pipelines.conditions import Residuals
from referencenet.pipelines.encoders import encode_pixels, generators_for, pixels_of, prompt_states, read_one, squared
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.spec import Canvas, Moment, Shown


def balance_of(hints: str) -> TwoWay:
    """Guidance by the prompt alone; what is blank is the negative prompt's.

    Args:
        hints: Name of the ControlNet's condition.
    """
    return TwoWay(reads="blank", blind=("prompt", hints))


BALANCE = balance_of("poses")
"""MagicPose's."""


class Poses(Residuals):
    """The ControlNet's residuals; with `balance` a blind pass has those of the negative prompt instead of zeros."""

    def encode(self, pipe: Any, call: Any) -> tuple[Any, ...]:
        """Pictures, the prompt's states, and with `balance` the negative prompt's."""
        negative = call.given[self.context][1] if call.guidance.reads_blank else None
        return (*super().encode(pipe, call), negative)

    def at_step(self, pipe: Any, value: Any, moment: Moment) -> Any:
        """What gives the residuals, per prompt."""
        pictures, prompt, negative = value
        other = None if negative is None else super().at_step(pipe, (pictures, negative), moment)
        return super().at_step(pipe, (pictures, prompt), moment), other

    def at_window(self, pipe: Any, value: Any, frames: Sequence[int] | None) -> Any:
        """The residuals of the frames, per prompt."""
        return [None if each is None else super(Poses, self).at_window(pipe, each, frames) for each in value]

    def seen(self, value: Any) -> list[Tensor]:
        """The prompt's."""
        return value[0]

    def blank(self, value: Any) -> list[Tensor]:
        """The negative prompt's, or zeros."""
        return super().blank(value[0]) if value[1] is None else value[1]


def shown_on(pipe: Any, reference: Any, states: Tensor) -> Any:
    """A picture, and states (r, tokens, channels), as what makes a `Shown` of a canvas; banks as they are.

    Shown is a draw from the autoencoder's posterior as published, (1, 4, h, w), a row for each prompt's states.

    Args:
        pipe: Whose autoencoder.
        reference: A picture, or what was written of one.
        states: Of the prompts, the negative one first.
    """
    if isinstance(reference, ReferenceBank | BankSeries | Shown):
        return reference

    def show(canvas: Canvas) -> Shown:
        pixels = pixels_of([squared(read_one(reference), canvas.size)])
        latents = encode_pixels(pipe, pixels, generators_for(canvas.generator, 1), sample=True, keep=True)
        return Shown(latents=latents.expand(len(states), -1, -1, -1), context=states)

    return show


def states_of(
    pipe: Any, prompt: str, negative: str, embeds: Tensor | None, negative_embeds: Tensor | None, balance: bool
) -> tuple[Tensor, Tensor]:
    """States (1, tokens, channels) of both prompts, one object twice where only one counts.

    Raises:
        ValueError: If there is a negative prompt without `balance`.
    """
    if not balance and (negative or negative_embeds is not None):
        raise ValueError(
            "a negative prompt counts with balance=True only: otherwise both passes have the prompt, as published."
        )
    if embeds is None:
        return prompt_states(pipe, prompt, negative if balance else prompt)
    return embeds, embeds if negative_embeds is None else negative_embeds


def guided(
    pipe: Any, hints: str, balance: bool, states: tuple[Tensor, Tensor], reference: Any, options: Mapping[str, Any]
) -> tuple[TwoWay | None, Tensor, Mapping[str, Any]]:
    """The call's guidance, what the writer is told, and options; with equal prompts both passes are one.

    Args:
        pipe: The system.
        hints: Name of the ControlNet's condition.
        balance: Whether to guide by the prompt alone.
        states: Of both prompts, (1, tokens, channels) each.
        reference: As the call takes it.
        options: Of the call.

    Raises:
        ValueError: If the reference was written already, for one prompt.
    """
    if not balance:
        return None, states[0], options
    if states[0] is states[1] or options.get("guidance_scale", pipe.spec.scale) <= 1:
        return None, states[0], {**options, "guidance_scale": 1.0}
    if isinstance(reference, ReferenceBank | BankSeries):
        raise ValueError("with balance=True the reference is written for both prompts: give it as a picture.")
    return balance_of(hints), torch.cat([states[1], states[0]]), options
