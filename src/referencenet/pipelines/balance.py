"""Guidance by the prompt alone, with reference and pose in both passes: MagicPose's `control_mode="balance"`.

Both passes see reference and pose, but writer and ControlNet are told the pass's own prompt. So the bank has two rows,
the negative prompt's first, and there are residuals of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from referencenet.pipelines.conditions import Residuals
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.spec import Moment

BALANCE = TwoWay(reads="blank", blind=("prompt", "poses"))
"""What is blank is the negative prompt's."""


class Poses(Residuals):
    """The ControlNet's residuals; with `BALANCE` a blind pass has those of the negative prompt instead of zeros."""

    def encode(self, pipe: Any, call: Any) -> tuple[Any, ...]:
        """Pictures, the prompt's states, and with `BALANCE` the negative prompt's."""
        negative = call.given[self.context][1] if call.guidance is BALANCE else None
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
