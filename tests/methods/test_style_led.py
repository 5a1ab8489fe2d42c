"""A loop that another scheduler leads than the pipeline's own: a style stands at the levels of the one that leads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from torch import Tensor

from referencenet import Style, share
from tiny import CONTEXT, picture, scheduler, tiny
from tolerances import ROUNDING, relative_error


class Led(StableDiffusionPipeline):
    """Has a loop of its own, and is given what leads it."""

    def __call__(self, scheduler: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        scheduler.set_timesteps(3)
        latents = torch.zeros(2, 4, 8, 8)
        for t in scheduler.timesteps:
            given = scheduler.scale_model_input(latents, t)
            latents = scheduler.step(self.unet(given, t, torch.zeros(2, 5, CONTEXT)).sample, t, latents).prev_sample
        return latents


@torch.no_grad()
def test_a_style_is_at_the_level_of_the_scheduler_that_leads():
    parts = tiny("sd").pipe.components
    pipe = Led(**parts, requires_safety_checker=False)
    leads = EulerDiscreteScheduler.from_config(scheduler().config, use_karras_sigmas=True)
    seen: list[Tensor] = []
    with (
        share(pipe, Style(picture(1), how="noised", seed=5), guided=False),
        pipe.unet.conv_in.register_forward_pre_hook(lambda _, args: seen.append(args[0][:1])),
    ):
        pipe(leads)
    pixels = pipe.image_processor.preprocess(picture(1), 64, 64)
    clean = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    assert len(seen) == 3
    for sample, sigma in zip(seen, leads.sigmas, strict=False):
        assert relative_error(sample, (clean + sigma * noise) / (1 + sigma**2) ** 0.5) < ROUNDING


@torch.no_grad()
def test_a_style_is_inverted_over_the_steps_of_the_scheduler_that_leads():
    pipe = Led(**tiny("sd").pipe.components, requires_safety_checker=False)
    leads = EulerDiscreteScheduler.from_config(scheduler().config, use_karras_sigmas=True)
    with share(pipe, Style(picture(1)), guided=False):
        assert pipe(leads).isfinite().all()


@pytest.mark.parametrize("how", ["inverted", "noised"])
@torch.no_grad()
def test_without_a_scheduler_of_its_own_the_pipelines_leads(how: Any):
    pipeline = tiny("sd")
    with share(pipeline.pipe, Style(picture(1), how=how)):
        assert pipeline(prompt=["a knight", "a wizard"]).isfinite().all()
