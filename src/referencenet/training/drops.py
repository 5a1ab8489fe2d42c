"""What samples go without while they are learned from, so that guidance has something to move away from.

A drop is the blindness of a pass, as in `pipelines/passes.py`: every sample is a pass of its own, which reads the
reference or not and sees conditions or not. Letter: b samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from referencenet.pipelines.passes import Pass, Reads
from referencenet.training.config import meant
from referencenet.training.draws import sample_generator


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Something that a share of the samples goes without.

    Attributes:
        rate: In [0, 1].
        per: Whether each sample is drawn by itself, or all of a step's samples go without together.
        reads: What a sample reads in the reference's place; None: nothing.
        blind: Names of conditions that it does not see.
    """

    rate: float
    per: Literal["sample", "batch"] = "sample"
    reads: Reads | None = "reference"
    blind: tuple[str, ...] = ()


def with_rates(drops: Mapping[str, Drop], rates: Mapping[str, float]) -> dict[str, Drop]:
    """Drops with some rates changed.

    Raises:
        ValueError: If there is no such drop.
    """
    for name in rates:
        if name not in drops:
            raise ValueError(f"there is no drop {name!r}{meant(name, drops) if drops else '; this stage has none.'}")
    return {name: replace(drop, rate=rates.get(name, drop.rate)) for name, drop in drops.items()}


def draw_drops(drops: Mapping[str, Drop], seed: int, step: int, places: Sequence[int]) -> dict[str, Tensor]:
    """By the drop's name which samples go without, (b,) of bool.

    Args:
        drops: Of the stage.
        seed: Of the run.
        step: Whose samples these are.
        places: Of the samples in the run.
    """
    found: dict[str, Tensor] = {}
    for number, (name, drop) in enumerate(drops.items()):
        if drop.per == "batch":
            chance = torch.rand((), generator=sample_generator(seed, step, 32 + number)).expand(len(places))
        else:
            generators = (sample_generator(seed, place, 16 + number) for place in places)
            chance = torch.stack([torch.rand((), generator=generator) for generator in generators])
        found[name] = chance < drop.rate
    return found


def passes_of(drops: Mapping[str, Drop], dropped: Mapping[str, Tensor], samples: int) -> tuple[Pass, ...]:
    """One pass for each sample.

    Args:
        drops: Of the stage.
        dropped: By name which samples go without, (b,) of bool.
        samples: b.
    """
    found: list[Pass] = []
    for i in range(samples):
        hit = [drops[name] for name, which in dropped.items() if bool(which[i])]
        reads = next((drop.reads for drop in hit if drop.reads != "reference"), "reference")
        found.append(Pass(factor=1.0, reads=reads, blind=frozenset(name for drop in hit for name in drop.blind)))
    return tuple(found)
