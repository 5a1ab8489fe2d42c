"""Every pipeline and scheduler against the plain computation of tests/plain.py, with the noise given."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from plain import PlainReference
from plain_pipelines import published
from referencenet import AdaIN, Concat, Reference, reference
from tiny import KINDS, Tiny, latents, picture, scheduler, tiny
from tolerances import ROUNDING, relative_error

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array"),  # diffusers' schedulers and numpy 2
    pytest.mark.filterwarnings("ignore:Should have t"),  # torchsde, where times are rounded
]


PICTURED = ("depth",)
"""Pipelines that take no reference of latents."""

LEVELS = 1e-3
"""Relative: schedulers keep their tables in float32, and round timesteps between two levels."""


def noises(count: int, rows: int = 1) -> list[torch.Tensor]:
    return [latents(100 + step, rows, 4, 8, 8) for step in range(count)]


def count_passes(pipeline: Tiny, **changes: Any) -> int:
    """How often a plain call runs the UNet."""
    passes = []
    handle = pipeline.unet.conv_in.register_forward_hook(lambda *_: passes.append(1))
    pipeline(**changes)
    handle.remove()
    return len(passes)


def compare(pipeline: Tiny, noise: list[torch.Tensor], *, attention: float | None, adain: float | None,
            style_fidelity: float = 0.5, **changes: Any) -> float:  # fmt: skip
    """The relative difference between the library and the plain computation."""
    links = [Concat(weight=attention)] if attention is not None else []
    links += [AdaIN(weight=adain)] if adain is not None else []
    hero = latents(99)
    with reference(pipeline.pipe, Reference(latents=hero), links=links, noise=noise, style_fidelity=style_fidelity):
        ours = pipeline(**changes)
    plain = PlainReference(hero)
    with published(pipeline.pipe, [plain], noise, attention=attention, adain=adain, style_fidelity=style_fidelity):
        expected = pipeline(**changes)
    return relative_error(ours, expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PICTURED])
def test_pipeline_computes_what_the_specification_says(kind: str):
    pipeline = tiny(kind)
    noise = noises(count_passes(pipeline))
    assert compare(pipeline, noise, attention=1.0, adain=1.0) < ROUNDING


@pytest.mark.parametrize("kind", ["sd", "inpaint9", "ip_adapter", "sdxl", "animatediff"])
def test_each_link_alone_computes_what_the_specification_says(kind: str):
    pipeline = tiny(kind)
    noise = noises(count_passes(pipeline))
    assert compare(pipeline, noise, attention=1.0, adain=None) < ROUNDING
    assert compare(pipeline, noise, attention=None, adain=1.0) < ROUNDING


@pytest.mark.parametrize("kind", ["sd", "inpaint9", "controlnet", "sdxl", "animatediff"])
def test_without_guidance_everything_reads_in_full(kind: str):
    pipeline = tiny(kind)
    assert compare(pipeline, noises(2), attention=1.0, adain=1.0, guidance_scale=1.0) < ROUNDING


SCHEDULERS: dict[str, dict[str, Any]] = {
    "DDIMParallelScheduler": {},
    "DDIMScheduler": {},
    "DDPMParallelScheduler": {},
    "DDPMScheduler": {},
    "DEISMultistepScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "DPMSolverSDEScheduler": {"noise_sampler_seed": 3},  # two passes a step
    "DPMSolverSinglestepScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "EulerDiscreteScheduler": {},
    "HeunDiscreteScheduler": {},  # two passes a step
    "KDPM2AncestralDiscreteScheduler": {},  # two passes a step
    "KDPM2DiscreteScheduler": {},  # two passes a step
    "LCMScheduler": {},
    "LMSDiscreteScheduler": {},
    "PNDMScheduler": {"skip_prk_steps": True},
    "SASolverScheduler": {},
    "TCDScheduler": {},
    "UniPCMultistepScheduler": {},
}
"""Every scheduler of diffusers that leads a Stable Diffusion UNet on its training schedule."""

NEEDED = {"DPMSolverSDEScheduler": "torchsde", "LMSDiscreteScheduler": "scipy"}

ROTATING = [name for name in KINDS if name not in PICTURED]
PAIRS = [(ROTATING[5 * i % len(ROTATING)], name) for i, name in enumerate(SCHEDULERS)]


def scheduled(kind: str, name: str) -> Tiny:
    """A pipeline that another scheduler leads."""
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    pipeline = tiny(kind)
    pipeline.pipe.scheduler = getattr(diffusers, name).from_config(scheduler().config, **SCHEDULERS[name])
    return pipeline


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_every_scheduler_leads_the_reference_to_the_level_of_every_pass(kind: str, name: str):
    """The noise levels of the plain computation are those of the training schedule, read at the UNet's timestep."""
    pipeline = scheduled(kind, name)
    noise = noises(count_passes(pipeline))
    assert compare(pipeline, noise, attention=1.0, adain=None) < LEVELS


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("kind", ROTATING)
def test_every_pipeline_with_every_scheduler(kind: str, name: str):
    pipeline = scheduled(kind, name)
    noise = noises(count_passes(pipeline))
    assert compare(pipeline, noise, attention=1.0, adain=1.0, style_fidelity=0.3) < LEVELS


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if "Ancestral" in name or "Solver" in name])
def test_the_calls_own_generator_is_what_the_noise_is_drawn_from(name: str):
    pipeline = scheduled("sd", name)
    plain = pipeline()
    with reference(pipeline.pipe, Reference(picture(1))):
        linked = pipeline()
        again = pipeline()
    assert linked.isfinite().all()
    assert torch.equal(linked, again)
    assert torch.equal(pipeline(), plain)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_prediction_type_does_not_matter_to_the_write_pass(prediction_type: str):
    pipeline = tiny("sd2")
    pipeline.pipe.scheduler = scheduler(prediction_type=prediction_type)
    assert compare(pipeline, noises(2), attention=1.0, adain=1.0) < ROUNDING


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_img2img_starts_the_schedule_in_its_middle(name: str):
    pipeline = tiny("img2img")
    pipeline.pipe.scheduler = getattr(diffusers, name).from_config(scheduler().config)
    assert compare(pipeline, noises(2), attention=1.0, adain=None) < ROUNDING


@pytest.mark.parametrize("weight", [0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_links_weight_chooses_layers_by_the_published_rank(kind: str, weight: float):
    pipeline = tiny(kind)
    assert compare(pipeline, noises(2), attention=weight, adain=None) < ROUNDING
    assert compare(pipeline, noises(2), attention=None, adain=weight) < ROUNDING
    assert compare(pipeline, noises(2), attention=weight, adain=1 - weight) < ROUNDING


@pytest.mark.parametrize("style_fidelity", [0.0, 0.3, 1.0])
def test_style_fidelity_sets_how_much_the_unconditional_half_reads(style_fidelity: float):
    pipeline = tiny("sd")
    error = compare(pipeline, noises(2), attention=1.0, adain=1.0, style_fidelity=style_fidelity)
    assert error < ROUNDING


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_given_noise_may_have_rows_for_pictures_or_for_the_guidance_batch(rows: int):
    pipeline = tiny("sd")
    noise = noises(2, rows)
    changes = {"prompt": ["a knight", "a wizard"]}
    assert compare(pipeline, noise, attention=1.0, adain=1.0, **changes) < ROUNDING


def test_dynamic_guidance_may_end_within_a_call():
    pipeline = tiny("sd")
    cutoff = diffusers.callbacks.SDCFGCutoffCallback(cutoff_step_ratio=0.4)
    noise = noises(4)
    changes = {"num_inference_steps": 4, "callback_on_step_end": cutoff}
    assert compare(pipeline, noise, attention=1.0, adain=1.0, **changes) < ROUNDING
