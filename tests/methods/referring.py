"""References read by the library and by the plain computation, from the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from plain import PlainReference
from plain_pipelines import published
from referencenet import reference
from tiny import Tiny, latents

BOTH = ["attention", "adain"]
LINKS: dict[str, dict[str, float | None]] = {
    "attention": {"attention": 1.0, "adain": None},
    "adain": {"attention": None, "adain": 1.0},
    "both": {"attention": 1.0, "adain": 1.0},
}
HERO, OTHER = latents(90), latents(91)
LEFT = torch.arange(8).expand(8, 8) < 4  # the left half of 8 x 8 latents


def noise(steps: int = 2) -> list[torch.Tensor]:
    return [latents(100 + step) for step in range(steps)]


def linked(pipeline: Tiny, references: Any, *, links: Any = BOTH, style_fidelity: float = 0.5, steps: int = 2,
           **changes: Any) -> torch.Tensor:  # fmt: skip
    """The library's latents, with the noise given."""
    given = noise(steps)
    with reference(pipeline.pipe, references, links=links, style_fidelity=style_fidelity, noise=given):
        return pipeline(num_inference_steps=steps, **changes)


def plainly(pipeline: Tiny, references: Sequence[PlainReference], *, links: str = "both", style_fidelity: float = 0.5,
            steps: int = 2, **changes: Any) -> torch.Tensor:  # fmt: skip
    """The same by the plain computation."""
    with published(pipeline.pipe, references, noise(steps), style_fidelity=style_fidelity, **LINKS[links]):
        return pipeline(num_inference_steps=steps, **changes)


def named(links: str) -> list[str]:
    return BOTH if links == "both" else [links]
