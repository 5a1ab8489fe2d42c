"""What is measured of a system: unseen characters with their truth, how the system draws them, and what is scored.

A task's subclasses are the six commands' work. Every one draws the same cases several times over: with the reference,
with the link cut, with a wrong reference, and further ways of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch

from referencenet.builtin.training.data import character_seeds
from referencenet.networks.observer import Observer
from referencenet.paperdoll.character import Character
from referencenet.pipelines.passes import Unread

FIRST_CHARACTER = 1_000_000
"""Far from those of the picture sets that were trained on, which begin at 0."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A score.

    Attributes:
        name: Its key.
        told: What it is, with its unit.
        better: Whether less or more is better.
        aim: What it should reach, of the linked network; None: nothing was set.
    """

    name: str
    told: str
    better: str
    aim: float | None = None


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How pictures are drawn in a measurement.

    Attributes:
        steps: Denoising steps.
        guidance: Guidance scale; 1 is none.
        seed: Of the noise.
        drawn: Called with the number of cases that a call has drawn.
        speech: The model that hears, of talking portraits.
        further: Other arguments of the pipeline's call.
    """

    steps: int
    guidance: float = 1.0
    seed: int = 0
    drawn: Callable[[int], None] = lambda _: None
    speech: Any = None
    further: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def options(self, size: tuple[int, int]) -> dict[str, Any]:
        """Of a call."""
        width, height = size
        given = {"num_inference_steps": self.steps, "guidance_scale": self.guidance}
        return {"width": width, "height": height, **given, **self.further}

    def noise(self, case: int) -> torch.Generator:
        """That of a case, the same in every way of drawing it."""
        return torch.Generator().manual_seed(self.seed * 100_003 + case)


class Task:
    """Cases of unseen characters.

    Args:
        number: Of characters, at least 1; a wrong reference is another one's, so that needs 2.
        seed: Which characters and scenes.
        size: (width, height) of the pictures.
        observer: The measure of who and what is seen.
    """

    name: ClassVar[str]
    measures: ClassVar[tuple[Measure, ...]]
    """The first one says how much of the gap is closed."""
    batch: ClassVar[int] = 16

    def __init__(self, number: int, seed: int, size: tuple[int, int], observer: Observer) -> None:
        self.number, self.seed, self.size, self.observer = number, seed, size, observer
        self.truth = self.rendered()

    def rendered(self) -> np.ndarray:
        """The right answers, (n, H, W, 3), of films (n, f, H, W, 3) uint8."""
        raise NotImplementedError

    def draw(self, pipe: Any, drawing: Drawing, *, wrong: bool = False) -> np.ndarray:
        """The system's answers, of the truth's shape; `wrong`: each from another one's reference."""
        raise NotImplementedError

    def scores(self, pictures: np.ndarray) -> dict[str, float]:
        """Name to value, of all `measures`."""
        raise NotImplementedError

    def given(self, case: int, frame: int = 0) -> list[np.ndarray]:
        """What the system is given of a case, of a film's frame: pictures (H, W, 3) of any size."""
        raise NotImplementedError

    def cut(self, pipe: Any, drawing: Drawing) -> np.ndarray:
        """The same network's answers when its denoiser reads nothing; what else comes of a reference stays."""
        with link_cut(pipe):
            return self.draw(pipe, drawing)

    def further(self, pipe: Any, drawing: Drawing) -> Iterator[tuple[str, np.ndarray]]:  # noqa: ARG002 - of some
        """Other ways of drawing the cases, by name."""
        yield from ()

    def places(self) -> list[slice]:
        """The cases in batches."""
        return [slice(i, min(i + self.batch, self.number)) for i in range(0, self.number, self.batch)]

    def other(self, case: int) -> int:
        """Whose reference is the wrong one of a case."""
        return (case + 1) % self.number


@contextmanager
def link_cut(pipe: Any) -> Generator[None]:
    """Inside, no pass of the pipeline's denoiser reads its reference."""
    spec = pipe.spec
    before = vars(pipe).get("spec")
    pipe.spec = replace(spec, guidance=Unread(guidance=spec.guidance))
    try:
        yield
    finally:
        if before is None:
            del pipe.spec
        else:
            pipe.spec = before


def unseen(number: int, seed: int, fits: Callable[[Character], bool] = lambda _: True) -> list[int]:
    """Characters of the test split, from a place that the seed chooses.

    Args:
        number: How many.
        seed: Where to begin.
        fits: Which ones may be taken.
    """
    start = FIRST_CHARACTER + 10_000 * seed
    found = character_seeds("test", 8 * number + 64, start=start)
    fitting = list(islice((c for c in found if fits(Character.from_seed(c))), number))
    if len(fitting) < number:
        raise ValueError(f"of {len(found)} characters {len(fitting)} fit; ask for fewer than {number}.")
    return fitting


def as_bytes(pictures: Any) -> np.ndarray:
    """Floats in [0, 1] of any shape to uint8."""
    return (np.asarray(pictures) * 255).round().astype(np.uint8)
