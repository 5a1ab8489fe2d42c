"""What options of `Reference` and `reference` means, against the plain computation or each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from safetensors.torch import save_file

from methods.referring import BOTH, HERO, LINKS, OTHER, linked, named, plainly
from plain import PlainReference, attention_names
from referencenet import AdaIN, Concat, Reference, reference
from tiny import half_mask, latents, picture, scheduler, tiny
from tolerances import ROUNDING, relative_error

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
