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
