"""Tiny recipes with inputs of the right shapes: what the tests of all trainings share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from referencenet.training.config import DataConfig, RunConfig
from referencenet.training.predicted import Inputs
from referencenet.training.recipes.index import recipe_of, recipes
from tiny import tiny_pipeline

CASES = [(system, stage) for system in recipes() for stage in recipe_of(system).stages]
"""All systems and stages."""

SIDE = {"aniportrait": 16, "hallo": 16, "emo": 16}
"""Of the latents, where 8 leaves a guider nothing to normalise."""

FRAMES = 3


def tiny_recipe(system: str, stage: str, **changes: Any) -> Any:
    """A recipe on a fresh tiny pipeline."""
    kind = recipe_of(system)
    frames = FRAMES if kind.stages[stage].frames > 1 else 0
    config = RunConfig(**({"steps": 30, "data": DataConfig(frames=frames, workers=0)} | changes))
    return kind(tiny_pipeline(kind.pipeline), stage, config)


def inputs_for(recipe: Any, samples: int = 2, seed: int = 0) -> Inputs:
    """A batch of seeded noise."""
    generator = torch.Generator().manual_seed(seed)

    def make(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    side = SIDE.get(recipe.system, 8)
    found = recipe.exampled(make, samples, (side, side))
    return replace(found, timesteps=torch.full_like(found.timesteps, 400))


def losses_of_thirty_steps(recipe: Any, batch: Any, rate: float) -> list[float]:
    """The loss of one batch before each of thirty steps of Adam."""
    optimizer = torch.optim.Adam(recipe.parameters.values(), lr=rate)
    losses: list[float] = []
    for _ in range(30):
        with recipe.losses(batch) as found:
            found["loss"].backward()
        losses.append(float(found["loss"].detach()))
        optimizer.step()
        optimizer.zero_grad()
    return losses


WRITTEN = {
    "aniportrait": ("aniportrait", 1, {"train": 1}, ("frames", "landmarks")),
    "flat": ("flat", 10, {"train": 8, "test": 2}, ("target", "references", "pose", "dense", "caption")),
    "hdtf": ("hdtf", 1, {"train": 1}, ("target", "audio", "face_mask", "speech", "speeds", "embedding", "track")),
    "identities": (
        "identities", 5, {"train": 20, "test": 5}, ("target", "references", "reference_boxes", "face_box", "caption")
    ),
    "parts2whole": (
        "parts2whole", 5, {"train": 4, "test": 1}, ("target", "parts", "part_masks", "dense", "pose", "caption")
    ),
    "tiktok": ("tiktok", 2, {"train": 1, "test": 1}, ("target", "pose", "dense")),
    "ubc": ("ubc", 2, {"train": 2}, ("target", "pose", "dense")),
    "views": ("views", 2, {"train": 2}, ("views", "cameras")),
    "viton_hd": (
        "viton-hd", 5, {"train": 4, "test": 1},
        ("target", "garment", "garment_mask", "mask", "pose", "dense", "garment_caption"),
    ),
}  # fmt: skip
"""Layout to paperdoll's name for it, how many, samples by split, and the fields that they have."""
