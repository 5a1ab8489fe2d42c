"""A ControlNet as a call of diffusers rules it: scale, window of steps, guess mode; each pass with its own text.

The condition's features come ready, made once per call; outside of its window the network does not run. For pictures.
Letters: r rows, b samples, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from referencenet.pipelines.spec import Condition, Moment, UNetCall, each_for


@dataclass(frozen=True, kw_only=True)
class Control:
    """What a call says about its ControlNet.

    Attributes:
        features: Makes the condition's features (r, width, h, w); called once.
        scale: Of the residuals; 0: the ControlNet does not run.
        start: Share of the steps that pass before it begins.
        end: Share of the steps after which it ends.
        guess_mode: Only the pass with the prompt has residuals, weaker ones at higher resolutions.
    """

    features: Callable[[], Tensor]
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    guess_mode: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError if a number is out of its range."""
        if not isfinite(self.scale):
            raise ValueError(f"controlnet_conditioning_scale is {self.scale}; expected a finite number.")
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise ValueError(
                f"the ControlNet's window is from {self.start} to {self.end}; expected shares of the steps, "
                "0 <= control_guidance_start <= control_guidance_end <= 1."
            )

    def is_on(self, step: int, num_steps: int) -> bool:
        """Whether it takes part in a step, as diffusers counts."""
        return self.scale != 0 and step / num_steps >= self.start and (step + 1) / num_steps <= self.end


class ControlledResiduals(Condition):
    """A ControlNet's residuals, those of a blind pass made with the negative prompt. Given as a `Control`.

    Args:
        name: Of the condition.
        network: The pipeline's ControlNet, a `FeatureControlNet`.
        context: Name of the `Text` condition.
    """

    enters = "residuals of a ControlNet, added to the skips"

    def __init__(self, name: str, network: str = "controlnet", context: str = "prompt") -> None:
        super().__init__(name)
        self.network, self.context = network, context

    def encode(self, pipe: Any, call: Any) -> tuple[Control, Tensor | None, tuple[Tensor, Tensor]]:  # noqa: ARG002
        """What was said, the features, and the states of prompt and negative prompt."""
        control: Control = call.given[self.name]
        return control, control.features() if control.scale else None, call.given[self.context]

    def at_step(self, pipe: Any, value: Any, moment: Moment) -> tuple[Any, Any]:
        """Residuals of the passes that see the condition, and of those that are blind; None where there are none."""
        control, features, (prompt, negative) = value
        steps = pipe.scheduler.timesteps
        step = int((steps == moment.timestep).nonzero()[0])
        if not control.is_on(step, len(steps)):
            return None, None
        is_alone = control.guess_mode or negative is prompt or not pipe.do_classifier_free_guidance
        texts = [prompt] if is_alone else [negative, prompt]
        levels = self.run(pipe, control, moment, features, texts)
        if is_alone:
            return levels, [torch.zeros_like(level) for level in levels] if control.guess_mode else levels
        blank, seen = zip(*(level.chunk(2) for level in levels), strict=True)
        return list(seen), list(blank)

    def run(
        self, pipe: Any, control: Control, moment: Moment, features: Tensor, texts: Sequence[Tensor]
    ) -> list[Tensor]:
        """Residuals by level, (texts b, ...) each: those of the down blocks, then the middle's."""
        network, samples = getattr(pipe, self.network), len(moment.latents)
        place = (pipe.device_of(network), network.dtype)
        context = torch.cat([each_for(text, samples) for text in texts])
        down, middle = network(
            torch.cat([moment.latents] * len(texts)).to(*place),
            moment.timestep,
            encoder_hidden_states=context.to(*place),
            controlnet_cond=torch.cat([each_for(features, samples)] * len(texts)).to(*place),
            conditioning_scale=control.scale,
            guess_mode=control.guess_mode,
            return_dict=False,
        )
        return [*down, middle]

    def seen(self, value: tuple[Any, Any]) -> Any:
        """Those with the prompt."""
        return value[0]

    def blank(self, value: tuple[Any, Any]) -> Any:
        """Those with the negative prompt; zeros in guess mode."""
        return value[1]

    def joined(self, values: Sequence[Any], samples: int) -> Any:  # noqa: ARG002 - they have samples
        """By level, all passes behind each other; None outside of the window."""
        return None if values[0] is None else [torch.cat(level) for level in zip(*values, strict=True)]

    def enter(self, call: UNetCall, value: list[Tensor] | None) -> UNetCall:
        """As the UNet's additional residuals."""
        if value is None:
            return call
        return call.having(down_block_additional_residuals=tuple(value[:-1]), mid_block_additional_residual=value[-1])
