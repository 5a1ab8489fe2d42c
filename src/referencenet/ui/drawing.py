"""An order: what a tab asks for, checked and ready to be drawn; and pictures that are drawn one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from referencenet.cli.run import drawing_options
from referencenet.media.fitting import Fit, fitted
from referencenet.media.sheets import write_image
from referencenet.pipelines.seeds import draw_in_turn, steps_counted
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


def draw_pictures(
    pipe: Any,
    job: Job,
    folder: Path,
    *,
    shown: Callable[[Image.Image], Image.Image] = lambda picture: picture,
    **options: Any,
) -> list[Path]:
    """Draw pictures one at a time, each under the name of its seed.

    Args:
        pipe: Draws them.
        job: Is told how far they are, and ends them when it is cancelled.
        folder: Where they go.
        shown: What is written of a picture.
        options: As `draw_in_turn` takes them.
    """
    options["callback_on_step_end"] = steps_counted(job.progress, options["count"])
    return [
        write_image(shown(picture), folder / f"seed-{seed}.png", {**job.record, "seed": seed})
        for seed, picture in draw_in_turn(pipe, **options)
    ]


def sampling(given: Given, spec: Any) -> dict[str, Any]:
    """Size, steps and guidance of a system's call."""
    return drawing_options(spec, given.size(), given.steps(), given.guidance())


def at_size(picture: Image.Image, size: tuple[int, int], fit: Fit | None, ground: str = "white") -> Image.Image:
    """A picture, or a mask of mode L, at the result's size; None: as it is, and the system brings it to that."""
    return picture if fit is None else fitted(picture, size, fit, ground)
