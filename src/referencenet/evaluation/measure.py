"""A system measured on the drawn world: linked, with the link cut, with a wrong reference, and beside the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from referencenet.builtin.training.vae import reconstruct
from referencenet.evaluation.scores import gap_closed
from referencenet.evaluation.task import Drawing, Task

WAYS: Mapping[str, str] = MappingProxyType({
    "truth": "the truth itself",
    "autoencoder": "the truth through the autoencoder: the best that can be drawn",
    "linked": "the system",
    "cut": "the same network with its link cut",
    "wrong": "another one's reference",
    "training_free": "the built-in base model with training-free attention",
    "no_motion": "without motion modules",
})  # fmt: skip
"""How cases are drawn, in the order of the page."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came out.

    Attributes:
        scores: Way to name to value; None: infinite, as of the truth itself.
        gap_closed: Way to the share of the gap between the cut link and the truth through the autoencoder.
        pictures: Way to pictures, of the truth's shape.
        minutes: Of the drawing, by the clock.
    """

    scores: Mapping[str, Mapping[str, float | None]]
    gap_closed: Mapping[str, float | None]
    pictures: Mapping[str, np.ndarray]
    minutes: float


def measured(task: Task, pipe: Any, drawing: Drawing, begun: Callable[[str], None] = lambda _: None) -> Measured:
    """Draw a task's cases in every way and score them.

    Args:
        task: The cases.
        pipe: The system.
        drawing: How.
        begun: Told which way of drawing begins.
    """
    begun("truth through the autoencoder")
    start = time.monotonic()
    frames = task.truth.reshape(-1, *task.truth.shape[-3:])
    drawn = {"truth": task.truth, "autoencoder": reconstruct(pipe.vae, frames).reshape(task.truth.shape)}
    begun("linked")
    drawn["linked"] = task.draw(pipe, drawing)
    begun("link cut")
    drawn["cut"] = task.cut(pipe, drawing)
    begun("wrong reference")
    drawn["wrong"] = task.draw(pipe, drawing, wrong=True)
    begun("other ways")
    drawn |= dict(task.further(pipe, drawing))
    minutes = (time.monotonic() - start) / 60
    scores = {way: task.scores(pictures) for way, pictures in drawn.items()}
    first = task.measures[0].name
    ends = scores["cut"][first], scores["autoencoder"][first]
    gaps = {way: gap_closed(found[first], *ends) for way, found in scores.items() if way not in ("truth", "cut")}
    return Measured(
        scores={way: {name: _finite(value) for name, value in found.items()} for way, found in scores.items()},
        gap_closed={way: None if gap is None else round(gap, 4) for way, gap in gaps.items()},
        pictures=drawn,
        minutes=round(minutes, 1),
    )


def _finite(value: float) -> float | None:
    """A number as JSON can hold it, with four digits behind the point."""
    return round(value, 4) if math.isfinite(value) else None
