"""Pictures drawn one after the other, each from a seed of its own: the fourth of four is what it would be alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.utils import numpy_to_pil
from PIL import Image

from referencenet.pipelines.encoders import check_finite_result

StepDone = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
"""What a pipeline's call takes as `callback_on_step_end`."""


def steps_counted(told: Callable[[int, int], None], calls: int = 1) -> StepDone:
    """A callback that says how far several calls of a pipeline are.

    Args:
        told: Called with the steps that are done and the steps of all calls, as many as the scheduler takes.
        calls: Of the pipeline, one after the other.
    """
    before = 0

    def done(pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal before
        taken = len(pipe.scheduler.timesteps)
        told(before + step + 1, taken * calls)
        before += taken if step + 1 == taken else 0
        return tensors

    return done


def draw_one(pipe: Any, *given: Any, **options: Any) -> Image.Image:
    """The last picture of a pipeline's call, which must be finite.

    Args:
        pipe: Any that takes `output_type` and gives `images`.
        given: To its call.
        options: To its call.

    Raises:
        ValueError: If it holds NaN or infinite values.
    """
    found = pipe(*given, **options, output_type="np").images[-1:]  # (1, height, width, 3) in [0, 1]
    check_finite_result(torch.from_numpy(found))
    return numpy_to_pil(found)[0]


def seeded(seed: int) -> Any:
    """A generator on the CPU, whose noise is the same for every device."""
    return torch.Generator().manual_seed(seed)


def draw_in_turn(
    pipe: Any, *given: Any, count: int, seed: int, noise: Callable[[int], Any] = seeded, **options: Any
) -> Iterator[tuple[int, Image.Image]]:
    """Pictures and their seeds, each drawn when it is asked for.

    Args:
        pipe: Draws them.
        given: To its call.
        count: Pictures.
        seed: Of the first; the next ones count up.
        noise: The call's `generator` of a seed.
        options: To its call.

    Raises:
        ValueError: If one holds NaN or infinite values.
    """
    for each in range(seed, seed + count):
        yield each, draw_one(pipe, *given, **options, generator=noise(each))
