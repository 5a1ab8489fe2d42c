"""A reference stands at the noise level of the very pass that reads it, with every scheduler that leads a UNet."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import pytest
import torch

from referencenet import Reference, reference
from tiny import Tiny, latents, picture, scheduler, tiny

ON_SIGMAS = [
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
]
ON_TIMESTEPS = [
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "TCDScheduler",
]
CLEAN, NOISE = latents(1), [latents(10 + step) for step in range(24)]


def passes(pipeline: Tiny, **changes: Any) -> list[tuple[float, float, float]]:
    """Of every write pass the timestep and (alpha, sigma) of the reference in it."""
    seen: list[tuple[float, float, float]] = []

    def look(_: Any, args: Any, kwargs: Any) -> None:
        sample, timestep = args[0], args[1] if len(args) > 1 else kwargs["timestep"]
        if len(sample) == 1:  # written is the conditional half alone
            noise = NOISE[len(seen)]
            parts = torch.stack([CLEAN.flatten(), noise.flatten()], dim=1).double()
            solved = torch.linalg.lstsq(parts, sample.double().reshape(-1, 1))
            assert torch.allclose(parts @ solved.solution, sample.double().reshape(-1, 1), atol=1e-4)
            seen.append((float(timestep), *solved.solution.flatten().tolist()))

    with (
        pipeline.unet.register_forward_pre_hook(look, with_kwargs=True),
        reference(pipeline.pipe, Reference(latents=CLEAN), noise=NOISE, style_fidelity=1.0),
    ):
        pipeline(**changes)
    return seen


def trained_level(timestep: float) -> float:
    """Sigma over alpha at a timestep, whole or between two, from the training schedule."""
    cumulated = scheduler().alphas_cumprod.double()
    logs = ((1 - cumulated) / cumulated).sqrt().log()
    low = min(int(timestep), len(logs) - 2)
    return math.exp(float(torch.lerp(logs[low], logs[low + 1], timestep - low)))


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # diffusers' own tables
@pytest.mark.parametrize("kind", ["sd", "img2img"])
@pytest.mark.parametrize("name", ON_SIGMAS + ON_TIMESTEPS)
def test_the_reference_is_at_the_level_of_every_pass(name: str, kind: str):
    if name == "LMSDiscreteScheduler":
        pytest.importorskip("scipy")
    pipeline = tiny(kind)
    pipeline.pipe.scheduler = getattr(diffusers, name).from_config(scheduler().config)
    seen = passes(pipeline, num_inference_steps=6)
    assert len(seen) == len(pipeline.pipe.scheduler.timesteps) if kind == "sd" else seen
    for timestep, alpha, sigma in seen:
        assert alpha**2 + sigma**2 == pytest.approx(1, abs=1e-3)
        assert sigma / alpha == pytest.approx(trained_level(timestep), rel=0.02)


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_timesteps_that_occur_twice_have_levels_of_their_own(name: str):
    pipeline = tiny("sd")
    pipeline.pipe.scheduler = getattr(diffusers, name).from_config(scheduler().config, use_karras_sigmas=True)
    seen = passes(pipeline, num_inference_steps=20)
    sigmas = pipeline.pipe.scheduler.sigmas[: len(seen)].tolist()
    assert [sigma / alpha for _, alpha, sigma in seen] == pytest.approx(sigmas, rel=1e-3)


@pytest.mark.parametrize("name", ["EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"])
def test_the_scale_of_edm_is_its_own(name: str):
    pipeline = tiny("sd")
    pipeline.pipe.scheduler = getattr(diffusers, name)()
    for timestep, alpha, sigma in passes(pipeline, num_inference_steps=4):
        level = math.exp(4 * timestep)
        assert alpha == pytest.approx((level**2 + 0.25) ** -0.5, rel=1e-3)
        assert sigma == pytest.approx(level * (level**2 + 0.25) ** -0.5, rel=1e-3)


def test_a_scheduler_that_cannot_noise_a_picture_is_refused():
    pipeline = tiny("sd")
    pipeline.pipe.scheduler = diffusers.IPNDMScheduler()
    with reference(pipeline.pipe, picture(1)), pytest.raises(TypeError, match="IPNDMScheduler has no add_noise"):
        pipeline()


def test_a_pass_that_another_scheduler_leads_is_refused():
    pipeline = tiny("sd")
    pipeline.pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(scheduler().config)

    def later(module: Any, args: Any, kwargs: Any) -> Any:  # noqa: ARG001 - a hook's signature
        return (args[0], args[1] - 7, *args[2:]), kwargs

    handle = pipeline.unet.register_forward_pre_hook(later, with_kwargs=True)
    with handle, reference(pipeline.pipe, picture(1)), pytest.raises(ValueError, match="not where the pipeline's DPM"):
        pipeline()
