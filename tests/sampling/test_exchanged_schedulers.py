"""A scheduler of diffusers that takes the place of one of ours goes on with its noise schedule, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from referencenet.sampling.ldm_ddim import LDM_SCHEDULE, LDMScheduler
from referencenet.sampling.trailing_ddim import TrailingDDIMScheduler

OTHERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
OURS = {
    "trailing": TrailingDDIMScheduler,
    "trailing of another schedule": lambda: TrailingDDIMScheduler(beta_start=0.0001, beta_end=0.02),
    "latent-diffusion": lambda: LDMScheduler(**LDM_SCHEDULE),
}
TIMESTEPS = [0, 1, 250, 500, 999]


def exchanged(scheduler: Any, other: str) -> Any:
    return getattr(diffusers, other).from_config(scheduler.config)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", OURS)
def test_a_scheduler_that_takes_over_keeps_the_noise_schedule(name: str, other: str) -> None:
    scheduler = OURS[name]()
    found = exchanged(scheduler, other)
    levels = [each.alphas_cumprod[TIMESTEPS].double() for each in (found, scheduler)]
    assert torch.allclose(*levels, rtol=1e-4)
    keys = ("prediction_type", "clip_sample", "timestep_spacing")
    assert {key: found.config[key] for key in keys} == {key: scheduler.config[key] for key in keys}


@pytest.mark.parametrize("name", ["trailing", "latent-diffusion"])
def test_the_way_there_and_back_is_no_way(name: str, tmp_path: Path) -> None:
    scheduler = OURS[name]()
    back = type(scheduler).from_config(exchanged(scheduler, "DPMSolverMultistepScheduler").config)
    scheduler.save_pretrained(tmp_path)
    loaded = type(scheduler).from_pretrained(tmp_path)
    for found in (back, loaded):
        assert torch.equal(found.alphas_cumprod, scheduler.alphas_cumprod)
        for each in (found, scheduler):
            each.set_timesteps(7)
        assert torch.equal(found.timesteps, scheduler.timesteps)


def test_both_of_ours_name_their_relatives() -> None:
    for kind in (TrailingDDIMScheduler, LDMScheduler):
        assert diffusers.DPMSolverMultistepScheduler in kind().compatibles
