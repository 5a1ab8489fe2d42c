"""Where, when and at which size references are read, against the plain computation or each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from methods.referring import HERO, LEFT, LINKS, OTHER, linked, named, noise, plainly
from plain import PlainReference
from plain_pipelines import published
from referencenet import Reference, reference
from tiny import half_mask, picture, tiny
from tolerances import ROUNDING, relative_error

# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", LINKS)
@pytest.mark.parametrize("style_fidelity", [0.5, 1.0])
def test_a_mask_on_the_reference_drops_what_is_black(links: str, style_fidelity: float):
    pipeline = tiny("sd")
    masked = Reference(latents=HERO, mask=half_mask("left"))
    ours = linked(pipeline, masked, links=named(links), style_fidelity=style_fidelity)
    expected = plainly(pipeline, [PlainReference(HERO, mask=LEFT)], links=links, style_fidelity=style_fidelity)
    assert relative_error(ours, expected) < ROUNDING


@pytest.mark.parametrize("links", LINKS)
def test_a_mask_on_the_result_says_where_the_reference_is_read(links: str):
    pipeline = tiny("sd")
    masked = Reference(latents=HERO, result_mask=half_mask("left"))
    ours = linked(pipeline, masked, links=named(links))
    expected = plainly(pipeline, [PlainReference(HERO, result_mask=LEFT.float())], links=links)
    assert relative_error(ours, expected) < ROUNDING


def test_grey_in_the_result_mask_is_a_strength():
    pipeline = tiny("sd")
    grey = torch.full((64, 64), 0.4)
    ours = linked(pipeline, Reference(latents=HERO, result_mask=grey))
    expected = linked(pipeline, Reference(latents=HERO, strength=102 / 255))
    assert relative_error(ours, expected) < ROUNDING


def test_white_masks_change_nothing():
    pipeline = tiny("sd")
    white = torch.ones(64, 64)
    ours = linked(pipeline, Reference(latents=HERO, mask=white, result_mask=white))
    assert relative_error(ours, linked(pipeline, Reference(latents=HERO))) < ROUNDING


def test_masks_of_another_size_are_stretched():
    pipeline = tiny("sd")
    small, large = half_mask("left", (16, 16)), half_mask("left", (200, 200))
    results = [linked(pipeline, Reference(latents=HERO, mask=m, result_mask=m)) for m in (small, large)]
    assert relative_error(results[0], results[1]) < ROUNDING


def test_two_references_for_two_halves_of_the_result():
    """In a half that only one may reach, the other's tokens do not count: attention is per query."""
    pipeline = tiny("sd")
    seen: list[torch.Tensor] = []
    halves = [
        Reference(latents=HERO, result_mask=half_mask("left")),
        Reference(latents=OTHER, result_mask=half_mask("right")),
    ]
    for given in (halves, [halves[0]], [halves[1]]):
        outputs: list[torch.Tensor] = []
        site = pipeline.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
        with site.register_forward_hook(lambda _, __, output, outputs=outputs: outputs.append(output)):
            linked(pipeline, given, links="attention", steps=1)
        seen.append(outputs[-1].unflatten(1, (8, 8)))
    both, left, right = seen
    assert relative_error(both[:, :, :4], left[:, :, :4]) < ROUNDING
    assert relative_error(both[:, :, 4:], right[:, :, 4:]) < ROUNDING


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "steps"),
    [(0.0, 1.0, [0, 1, 2, 3]), (0.5, 1.0, [2, 3]), (0.0, 0.5, [0, 1]), (0.25, 0.75, [1, 2]), (0.9, 1.0, [])],
)
@pytest.mark.parametrize("links", ["attention", "both"])
def test_a_time_range_chooses_the_steps_that_read(links: str, start: float, end: float, steps: list[int]):
    pipeline = tiny("sd")
    ours = linked(pipeline, Reference(latents=HERO, start=start, end=end), links=named(links), steps=4)
    expected = plainly(pipeline, [PlainReference(HERO, steps=steps)], links=links, steps=4)
    assert relative_error(ours, expected) < ROUNDING


def test_outside_its_time_range_a_reference_is_not_written():
    pipeline = tiny("sd")
    passes: list[int] = []
    with (
        pipeline.unet.conv_in.register_forward_hook(lambda *_: passes.append(1)),
        reference(pipeline.pipe, [Reference(picture(1), end=0.5), Reference(picture(2), start=0.5)]),
    ):
        pipeline(num_inference_steps=4)
    assert len(passes) == 8  # at each step one write and one read


@pytest.mark.parametrize("kind", ["img2img", "sdxl_inpaint"])
def test_fractions_are_of_the_steps_that_are_run(kind: str):
    pipeline = tiny(kind)
    changes = {"num_inference_steps": 8, "strength": 0.5}  # four steps are run
    given = noise(4)
    with reference(pipeline.pipe, Reference(latents=HERO, start=0.5), noise=given):
        ours = pipeline(**changes)
    with published(pipeline.pipe, [PlainReference(HERO, steps=[2, 3])], given):
        expected = pipeline(**changes)
    assert relative_error(ours, expected) < ROUNDING


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("resize", "size"), [("fit", (4, 16)), ("stretch", (8, 8))])
def test_resize_says_whether_proportions_are_kept(resize: str, size: tuple[int, int]):
    pipeline = tiny("sd")
    sizes: list[tuple[int, ...]] = []
    with (
        pipeline.unet.conv_in.register_forward_hook(lambda _, args, __: sizes.append(tuple(args[0].shape[-2:]))),
        reference(pipeline.pipe, picture(1, size=(128, 32)), resize=resize),  # pyright: ignore[reportArgumentType]
    ):
        pipeline(num_inference_steps=1)
    assert sizes == [size, (8, 8)]


@pytest.mark.parametrize(("own_size", "expected"), [(False, [64, 64, 0, 0, 64, 64]), (True, [100, 80, 0, 0, 72, 56])])
def test_the_write_pass_of_sdxl_is_told_a_size(own_size: bool, expected: list[int]):
    pipeline = tiny("sdxl")
    time_ids: list[list[float]] = []
    with (
        pipeline.unet.add_time_proj.register_forward_hook(lambda _, args, __: time_ids.append(args[0].tolist())),
        reference(pipeline.pipe, picture(1, size=(80, 100)), own_size=own_size),
    ):
        pipeline(num_inference_steps=1, guidance_scale=1.0)
    assert time_ids == [expected, [64, 64, 0, 0, 64, 64]]


def test_control_residuals_reach_the_read_pass_only():
    pipeline = tiny("controlnet")
    residuals: list[bool] = []
    handle = pipeline.unet.register_forward_pre_hook(
        lambda _, __, kwargs: residuals.append(kwargs.get("mid_block_additional_residual") is not None),
        with_kwargs=True,
    )
    with handle, reference(pipeline.pipe, picture(1)):
        pipeline()
    assert sorted(residuals) == [False, False, True, True]


def test_inpainting_checkpoints_see_all_of_the_reference():
    pipeline = tiny("inpaint9")
    inputs: list[torch.Tensor] = []
    with (
        pipeline.unet.conv_in.register_forward_hook(lambda _, args, __: inputs.append(args[0])),
        reference(pipeline.pipe, Reference(latents=HERO), noise=noise()),
    ):
        pipeline()
    alphas = pipeline.pipe.scheduler.alphas_cumprod[pipeline.pipe.scheduler.timesteps[0]]
    written = inputs[0]
    assert torch.allclose(written[:, :4], alphas.sqrt() * HERO + (1 - alphas).sqrt() * noise()[0], atol=1e-5)
    assert torch.equal(written[:, 4], torch.zeros_like(written[:, 4]))
    assert torch.equal(written[:, 5:], HERO.expand_as(written[:, 5:]))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"latents_mean": [0.5, -1.0, 0.1, 2.0], "latents_std": [2.0, 3.0, 0.5, 4.0]}, "normalised"),
        ({"shift_factor": 0.3}, "shifted"),
    ],
    ids=["mean and std", "shift"],
)
def test_latents_are_normalised_as_the_vae_says(config: dict[str, Any], expected: str):
    pipeline = tiny("sdxl")
    vae = pipeline.pipe.vae
    vae.quant_conv.weight[4:].zero_()  # a posterior without variance
    vae.quant_conv.bias[4:].fill_(-60.0)
    vae.register_to_config(**config, scaling_factor=0.5)
    hero = picture(1)
    raw = vae.encode(pipeline.pipe.image_processor.preprocess(hero)).latent_dist.mean
    if expected == "normalised":
        mean, std = (torch.tensor(config[name]).view(1, 4, 1, 1) for name in ("latents_mean", "latents_std"))
        clean = (raw - mean) * 0.5 / std
    else:
        clean = (raw - 0.3) * 0.5
    assert relative_error(linked(pipeline, hero), linked(pipeline, Reference(latents=clean))) < ROUNDING
