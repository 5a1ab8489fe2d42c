"""An order: what a tab asks for, checked and ready to be drawn; and pictures that are drawn one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import numpy_to_pil
from PIL import Image

from referencenet.cli.run import drawing_options
from referencenet.media.fitting import Fit, fitted
from referencenet.media.sheets import write_image
from referencenet.pipelines.encoders import check_finite_result
from referencenet.ui.given import Given
from referencenet.ui.jobs import Job
from referencenet.ui.models import Model

Draw = Callable[[Any, Job, Path], list[Path]]
"""With the pipeline, the job and an empty folder: the paths of what was written there."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a tab asks for.

    Attributes:
        model: Which draws.
        draw: Draws.
        settings: What decides the result, by name.
        files: What was given, by name.
        posed: Whether the pose ReferenceNet draws.
        controlnet: Kind of the ControlNet that stands beside the model.
    """

    model: Model
    draw: Draw
    settings: Mapping[str, Any]
    files: Mapping[str, Path]
    posed: bool = False
    controlnet: str | None = None


def step_done(job: Job, calls: int = 1) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
    """A pipeline's `callback_on_step_end` that says how far a job is and ends it when it is cancelled.

    Args:
        job: The job.
        calls: Of the pipeline.
    """
    before = 0

    def done(pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal before
        taken = len(pipe.scheduler.timesteps)
        job.progress(before + step + 1, taken * calls)
        before += taken if step + 1 == taken else 0
        return tensors

    return done


def draw_pictures(
    pipe: Any,
    job: Job,
    folder: Path,
    *,
    count: int,
    seed: int,
    shown: Callable[[Image.Image], Image.Image] = lambda picture: picture,
    noise: Callable[[int], Any] = lambda seed: torch.Generator().manual_seed(seed),
    **options: Any,
) -> list[Path]:
    """Draw pictures one at a time, each from its own seed, counted up.

    Args:
        pipe: Draws them.
        job: Is told how far they are.
        folder: Where they go.
        count: Pictures.
        seed: Of the first.
        shown: What is written of a picture.
        noise: Generators of a seed.
        options: Of the pipeline's call.
    """
    done = step_done(job, count)
    paths: list[Path] = []
    for number in range(count):
        found = pipe(**options, generator=noise(seed + number), callback_on_step_end=done, output_type="np").images[-1:]
        check_finite_result(torch.from_numpy(found))
        record = {**job.record, "seed": seed + number}
        paths.append(write_image(shown(numpy_to_pil(found)[0]), folder / f"seed-{seed + number}.png", record))
    return paths


def sampling(given: Given, spec: Any) -> dict[str, Any]:
    """Size, steps and guidance of a system's call."""
    return drawing_options(spec, given.size(), given.steps(), given.guidance())


def at_size(picture: Image.Image, size: tuple[int, int], fit: Fit | None, ground: str = "white") -> Image.Image:
    """A picture, or a mask of mode L, at the result's size; None: as it is, and the system brings it to that."""
    return picture if fit is None else fitted(picture, size, fit, ground)
