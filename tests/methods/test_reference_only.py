"""What each option of `Reference` and `reference` means, against the plain computation or each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from safetensors.torch import save_file

from plain import PlainReference, attention_names, published
from referencenet import AdaIN, Concat, Reference, reference
from tiny import Tiny, half_mask, latents, picture, scheduler, tiny
from tolerances import ROUNDING, relative_error

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


# --- strength ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", LINKS)
@pytest.mark.parametrize("guidance_scale", [7.5, 1.0])
@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_strength_interpolates_between_plain_and_published_outputs(strength: float, guidance_scale: float, links: str):
    pipeline = tiny("sd")
    ours = linked(
        pipeline, Reference(latents=HERO, strength=strength), links=named(links), guidance_scale=guidance_scale
    )
    expected = plainly(pipeline, [PlainReference(HERO, strength=strength)], links=links, guidance_scale=guidance_scale)
    assert relative_error(ours, expected) < ROUNDING


@pytest.mark.parametrize("kind", ["sd", "inpaint9", "sdxl", "animatediff"])
def test_strength_zero_is_plain_to_the_bit(kind: str):
    pipeline = tiny(kind)
    plain = pipeline()
    with reference(pipeline.pipe, Reference(picture(1), strength=0.0), links=BOTH):
        assert torch.equal(pipeline(), plain)


def test_strength_zero_takes_nothing_from_the_generator():
    pipeline = tiny("sd")
    pipeline.pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(scheduler().config)
    plain = pipeline(num_inference_steps=3)
    with reference(pipeline.pipe, Reference(picture(1), strength=0.0)):
        assert torch.equal(pipeline(num_inference_steps=3), plain)


def test_a_reference_of_strength_zero_beside_another_is_not_there():
    pipeline = tiny("sd")
    alone = linked(pipeline, Reference(latents=HERO))
    beside = linked(pipeline, [Reference(latents=OTHER, strength=0.0), Reference(latents=HERO)])
    assert torch.equal(alone, beside)


def test_strength_is_continuous_at_both_ends():
    pipeline = tiny("sd")
    plain, full = pipeline(), linked(pipeline, Reference(latents=HERO))
    assert relative_error(linked(pipeline, Reference(latents=HERO, strength=1e-4)), plain) < 0.02
    assert relative_error(linked(pipeline, Reference(latents=HERO, strength=1 - 1e-4)), full) < 0.02


# --- style fidelity ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style_fidelity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("links", LINKS)
def test_style_fidelity_and_strength_multiply(links: str, strength: float, style_fidelity: float):
    pipeline = tiny("sd")
    ours = linked(
        pipeline, Reference(latents=HERO, strength=strength), links=named(links), style_fidelity=style_fidelity
    )
    references = [PlainReference(HERO, strength=strength)]
    expected = plainly(pipeline, references, links=links, style_fidelity=style_fidelity)
    assert relative_error(ours, expected) < ROUNDING


def test_at_style_fidelity_one_the_unconditional_half_is_neither_written_nor_read():
    pipeline = tiny("sd")
    rows: list[int] = []
    name = attention_names(pipeline.unet)[0]
    projection = pipeline.unet.get_submodule(name).to_k
    handle = projection.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[0]))
    with handle, reference(pipeline.pipe, picture(1), style_fidelity=1.0):
        pipeline(num_images_per_prompt=3)
    assert rows == [3, 6, 3, 6]  # written: the conditional half; read: the own tokens of both halves


def test_without_guidance_style_fidelity_has_no_effect():
    pipeline = tiny("sd")
    results = [linked(pipeline, Reference(latents=HERO), style_fidelity=s, guidance_scale=1.0) for s in (0.0, 0.5, 1.0)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


# --- weight -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", LINKS)
def test_weight_two_equals_the_reference_given_twice(links: str):
    pipeline = tiny("sd")
    twice = [Reference(latents=HERO), Reference(latents=HERO), Reference(latents=OTHER)]
    doubled = [Reference(latents=HERO, weight=2.0), Reference(latents=OTHER)]
    first, second = (linked(pipeline, given, links=named(links)) for given in (twice, doubled))
    assert relative_error(first, second) < ROUNDING


@pytest.mark.parametrize("links", LINKS)
@pytest.mark.parametrize("weights", [(0.3, 1.0), (2.5, 0.7), (1.0, 1.0)])
def test_weights_of_several_references_are_those_of_the_plain_computation(weights: tuple[float, float], links: str):
    pipeline = tiny("sd")
    given = [Reference(latents=x, weight=w) for x, w in zip((HERO, OTHER), weights, strict=True)]
    plain = [PlainReference(x, weight=w) for x, w in zip((HERO, OTHER), weights, strict=True)]
    ours, expected = linked(pipeline, given, links=named(links)), plainly(pipeline, plain, links=links)
    assert relative_error(ours, expected) < ROUNDING


# --- several references -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", LINKS)
@pytest.mark.parametrize("strengths", [(1.0, 1.0, 1.0), (0.5, 0.5, 0.5), (0.2, 1.0, 0.7)])
def test_the_order_of_references_does_not_matter(strengths: tuple[float, float, float], links: str):
    pipeline = tiny("sd")
    given = [Reference(latents=latents(90 + i), strength=s, weight=1 + i) for i, s in enumerate(strengths)]
    forward = linked(pipeline, given, links=named(links))
    backward = linked(pipeline, [given[1], given[2], given[0]], links=named(links))
    assert relative_error(backward, forward) < ROUNDING


def test_the_order_of_pictures_does_not_matter_with_the_calls_own_noise():
    pipeline = tiny("sd")
    pipeline.pipe.vae.quant_conv.weight[4:].zero_()  # a posterior without variance: encoding draws no visible noise
    pipeline.pipe.vae.quant_conv.bias[4:].fill_(-60.0)
    results = []
    for seeds in [(1, 2), (2, 1)]:
        with reference(pipeline.pipe, [picture(seed) for seed in seeds], links=BOTH):
            results.append(pipeline())
    assert relative_error(results[0], results[1]) < ROUNDING


def test_references_may_have_different_sizes():
    pipeline = tiny("sd")
    given = [latents(90), latents(91, 1, 4, 4, 12), latents(92, 1, 4, 10, 6)]
    rows: list[tuple[int, ...]] = []
    handle = pipeline.unet.conv_in.register_forward_hook(lambda _, args, __: rows.append(tuple(args[0].shape[-2:])))
    with handle, reference(pipeline.pipe, [Reference(latents=x) for x in given], links=BOTH):
        result = pipeline(num_inference_steps=1)
    assert rows == [(8, 8), (4, 12), (10, 6), (8, 8)]
    assert result.isfinite().all()


def test_each_picture_of_a_batch_may_have_its_own_reference_latents():
    pipeline = tiny("sd")
    hero = latents(90, 3, 4, 8, 8)
    start = latents(7, 3, 4, 8, 8)
    batch = linked(pipeline, Reference(latents=hero), num_images_per_prompt=3, latents=start)
    for row in range(3):
        one = slice(row, row + 1)
        alone = linked(pipeline, Reference(latents=hero[one]), latents=start[one])
        assert relative_error(batch[one], alone) < ROUNDING


@pytest.mark.parametrize("kind", ["sd", "sdxl", "inpaint9"])
@pytest.mark.parametrize("style_fidelity", [0.5, 1.0])
def test_a_batch_of_prompts_equals_a_loop_of_singles(kind: str, style_fidelity: float):
    pipeline = tiny(kind)
    start = latents(7, 2, 4, 8, 8)
    prompts = ["a knight", "a very tall wizard"]
    batch = linked(pipeline, Reference(latents=HERO), style_fidelity=style_fidelity, prompt=prompts, latents=start)
    for row, prompt in enumerate(prompts):
        one = slice(row, row + 1)
        alone = linked(
            pipeline, Reference(latents=HERO), style_fidelity=style_fidelity, prompt=prompt, latents=start[one]
        )
        assert relative_error(batch[one], alone) < ROUNDING


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


# --- equivalent spellings ---------------------------------------------------------------------------------------------


def test_links_may_be_named_or_built():
    pipeline = tiny("sd")
    results = [
        linked(pipeline, Reference(latents=HERO), links=links)
        for links in (["attention", "adain"], [AdaIN(), Concat()], ("adain", Concat(weight=1.0)))
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_picture_may_stand_for_a_reference(tmp_path):
    pipeline = tiny("sd")
    hero = picture(1)
    hero.save(tmp_path / "hero.png")
    results = []
    for given in (hero, Reference(hero), [hero], [Reference(hero)], str(tmp_path / "hero.png"), tmp_path / "hero.png"):
        with reference(pipeline.pipe, given):
            results.append(pipeline())
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_reference_belongs_to_no_pipeline():
    hero = Reference(picture(1))
    pipelines = [tiny("sd"), tiny("sdxl")]
    first = []
    for pipeline in pipelines:
        with reference(pipeline.pipe, hero):
            first.append(pipeline())
    for pipeline, before in zip(pipelines, first, strict=True):
        with reference(pipeline.pipe, hero):
            assert torch.equal(pipeline(), before)


# --- encoded references -----------------------------------------------------------------------------------------------


def test_an_encoded_reference_is_saved_and_read_as_the_picture_is(tmp_path: Path):
    pipeline = tiny("sd")
    told = Reference(picture(1), strength=0.7, end=0.9, mask=half_mask("left"), result_mask=half_mask("top"))
    encoded = told.encode(pipeline.pipe, width=64, height=64, generator=torch.Generator().manual_seed(5))
    encoded.save(tmp_path / "hero.safetensors")
    loaded = Reference.load(tmp_path / "hero.safetensors")
    assert loaded.latents is not None
    assert encoded.latents is not None
    assert torch.equal(loaded.latents, encoded.latents)
    assert (loaded.strength, loaded.end) == (0.7, 0.9)
    with reference(pipeline.pipe, encoded):
        expected = pipeline()
    with reference(pipeline.pipe, loaded):
        assert torch.equal(pipeline(), expected)
    with reference(pipeline.pipe, replace(told, strength=1.0)):
        assert not torch.equal(pipeline(), expected)


def test_what_is_no_encoded_reference_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="save what encode"):
        Reference(picture(1)).save(tmp_path / "hero.safetensors")
    with pytest.raises(FileNotFoundError, match=r"hero\.safetensors"):
        Reference.load(tmp_path / "hero.safetensors")
    save_file({"latents": torch.zeros(1, 4, 8, 8)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not an encoded reference"):
        Reference.load(tmp_path / "other.safetensors")
