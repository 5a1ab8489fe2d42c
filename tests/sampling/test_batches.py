"""Batches that are not two halves, and UNets that see them in parts: what each row is shown and what it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0, PAGIdentitySelfAttnProcessor2_0
from PIL import Image

from plain import PlainReference
from plain_pipelines import published
from referencenet import AdaIN, Concat, Reference, reference, share
from tiny import Tiny, latents, picture, tiny
from tolerances import ROUNDING, relative_error
from traces import pipeline_traces

HERO = latents(99)
LINKS = {"attention": [Concat()], "adain": [AdaIN()], "both": [Concat(), AdaIN()]}


def noise(count: int = 8) -> list[torch.Tensor]:
    return [latents(100 + step) for step in range(count)]


def read(pipeline: Tiny, links: str = "both", hero: Any = None, *, options: Any = None, **changes: Any) -> torch.Tensor:
    """The library's latents, with the noise given."""
    hero = Reference(latents=HERO) if hero is None else hero
    with reference(pipeline.pipe, hero, links=LINKS[links], noise=noise(), **(options or {})):
        return pipeline(**changes)


def plainly(pipeline: Tiny, links: str = "both", *, options: Any = None, **changes: Any) -> torch.Tensor:
    """The same by the plain computation."""
    weights = {"attention": 1.0 if links != "adain" else None, "adain": 1.0 if links != "attention" else None}
    with published(pipeline.pipe, [PlainReference(HERO)], noise(), **weights, **(options or {})):
        return pipeline(**changes)


def shown(pipeline: Tiny, hero: Reference, **options: Any) -> torch.Tensor:
    """The sample of the first write pass."""
    seen: list[torch.Tensor] = []
    handle = pipeline.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with handle, reference(pipeline.pipe, hero, noise="fixed", **options):
        pipeline()
    return seen[1]  # the first is of the pass that reads, inside of which it is written


# --- the parts of guidance --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance_scale", [7.5, 1.0])
@pytest.mark.parametrize("links", ["attention", "adain"])
@pytest.mark.parametrize("kind", ["instruct", "pag", "panorama"])
def test_every_part_reads_as_the_plain_computation_says(kind: str, links: str, guidance_scale: float):
    pipeline = tiny(kind)
    plain = pipeline(guidance_scale=guidance_scale)
    ours = read(pipeline, links, guidance_scale=guidance_scale)
    assert relative_error(ours, plainly(pipeline, links, guidance_scale=guidance_scale)) < ROUNDING
    assert relative_error(ours, plain) > 1e-3
    assert torch.equal(pipeline(guidance_scale=guidance_scale), plain)


@pytest.mark.parametrize("style_fidelity", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["instruct", "sdxl_pag", "panorama"])
def test_style_fidelity_is_of_every_part_without_the_prompt(kind: str, style_fidelity: float):
    pipeline, options = tiny(kind), {"style_fidelity": style_fidelity}
    assert relative_error(read(pipeline, options=options), plainly(pipeline, options=options)) < ROUNDING


@pytest.mark.parametrize("kind", ["instruct", "pag"])
def test_several_pictures_equal_a_loop_of_singles(kind: str):
    pipeline, start, prompts = tiny(kind), latents(7, 2, 4, 8, 8), ["a knight", "a very tall wizard"]
    changes = {"image": [picture(10), picture(11)]} if kind == "instruct" else {}
    batch = read(pipeline, prompt=prompts, latents=start, **changes)
    for row, prompt in enumerate(prompts):
        own = {name: value[row] for name, value in changes.items()}
        alone = read(pipeline, prompt=prompt, latents=start[row : row + 1], **own)
        assert relative_error(batch[row : row + 1], alone) < ROUNDING


@pytest.mark.parametrize("kind", ["instruct", "pag", "panorama"])
def test_fixed_noise_writes_rows_that_are_alike_once_and_changes_nothing(kind: str):
    """Of InstructPix2Pix the parts without words differ in the picture that they are shown."""
    pipeline = tiny(kind)
    rows: list[int] = []
    handle = pipeline.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    with handle, reference(pipeline.pipe, Reference(latents=HERO), noise="fixed"):
        fixed = pipeline()
    generator = torch.Generator().manual_seed(0)  # draws the call's own latents first
    shape = (1, 4, 8, 72) if kind == "panorama" else HERO.shape
    torch.randn(shape, generator=generator)
    drawn = torch.randn(HERO.shape, generator=generator)
    with reference(pipeline.pipe, Reference(latents=HERO), noise=[drawn] * 2):
        assert relative_error(pipeline(), fixed) < ROUNDING
    passes = {"instruct": [3, 3], "pag": [3, 2], "panorama": [4, 2]}[kind]  # that reads, and inside of it that writes
    assert rows == passes * 2


def test_parts_whose_first_picture_cannot_be_shared_are_refused():
    for kind in ("pag", "panorama"):
        pipeline = tiny(kind)
        with share(pipeline.pipe), pytest.raises(ValueError, match="use reference"):
            pipeline()


# --- perturbed attention ----------------------------------------------------------------------------------------------


def test_where_nothing_is_read_perturbed_attention_is_what_it_was():
    pipeline = tiny("pag")
    plain = pipeline()
    late = Reference(latents=HERO, start=0.5)
    before = pipeline_traces(pipeline.pipe)
    ours = read(pipeline, hero=late)
    assert pipeline_traces(pipeline.pipe) == before
    with published(pipeline.pipe, [PlainReference(HERO, steps=[1])], noise(), attention=1.0, adain=1.0):
        assert relative_error(ours, pipeline()) < ROUNDING
    assert torch.equal(pipeline(), plain)


def test_attention_that_is_perturbed_for_another_pipeline_is_refused():
    pipeline = tiny("pag")
    pipeline.pipe._set_pag_attn_processor(["mid"], do_classifier_free_guidance=True)
    plain = tiny("sd")
    plain.pipe.unet = pipeline.unet
    with pytest.raises(TypeError, match=r"mid_block.* is computed for perturbed"), reference(plain.pipe, picture(1)):
        pass
    plain.unet.set_attn_processor(AttnProcessor2_0())
    with reference(plain.pipe, picture(1)):
        plain()


class OwnProcessor(PAGIdentitySelfAttnProcessor2_0):
    """Somebody's own perturbation."""


def test_somebodys_own_perturbation_is_refused():
    pipeline = tiny("pag")
    pipeline.pipe.set_pag_applied_layers("mid", (OwnProcessor(), OwnProcessor()))
    with reference(pipeline.pipe, picture(1), links="adain"), pytest.raises(TypeError, match="OwnProcessor"):
        pipeline()


# --- channels beside the latents --------------------------------------------------------------------------------------


@torch.no_grad()
def test_instruct_pix2pix_is_shown_the_reference_as_its_own_picture():
    pipeline = tiny("instruct")
    sample = shown(pipeline, Reference(picture(1)))
    pixels = torch.from_numpy(np.array(picture(1))).permute(2, 0, 1)[None] / 127.5 - 1
    expected = pipeline.pipe.vae.encode(pixels.float()).latent_dist.mode()
    assert relative_error(sample[:2, 4:], expected.expand(2, -1, -1, -1)) < ROUNDING
    assert not sample[2, 4:].any()


@torch.no_grad()
def test_depth_to_image_is_shown_the_references_own_depth():
    pipeline = tiny("depth")
    hero = picture(1, (96, 64))
    sample = shown(pipeline, Reference(hero), style_fidelity=1.0)
    height, width = sample.shape[-2:]
    assert (height, width) != (8, 8)
    resized = hero.resize((width * 8, height * 8), Image.Resampling.LANCZOS)
    pixels = pipeline.pipe.feature_extractor(images=[resized], return_tensors="pt").pixel_values
    depth = pipeline.pipe.depth_estimator(pixels).predicted_depth[:, None]
    depth = F.interpolate(depth, (height, width), mode="bicubic", align_corners=False)
    depth = 2 * (depth - depth.amin()) / (depth.amax() - depth.amin()) - 1
    assert relative_error(sample[:, 4:], depth) < ROUNDING


def test_depth_that_nothing_tells_is_refused():
    pipeline = tiny("depth")
    with reference(pipeline.pipe, Reference(latents=HERO)), pytest.raises(ValueError, match="depth map, and has none"):
        pipeline()


def test_channels_that_nothing_names_are_refused():
    pipeline = tiny("instruct")
    hook = lambda _, args: (torch.cat([args[0][:, :4], args[0][:, 4:].flip(1)], 1), *args[1:])  # noqa: E731
    handle = pipeline.unet.register_forward_pre_hook(hook)
    with handle, reference(pipeline.pipe, picture(1)), pytest.raises(ValueError, match="nothing says what the others"):
        pipeline()


# --- films in windows and chunks --------------------------------------------------------------------------------------


def film_pipeline(*, split: int | None = None, stride: int = 1) -> Tiny:
    """Films in FreeNoise's windows of three frames, cut into chunks of so many rows."""
    film = tiny("animatediff")
    film.pipe.enable_free_noise(context_length=3, context_stride=stride, noise_type="random")
    if split is not None:
        film.pipe.enable_free_noise_split_inference(spatial_split_size=7, temporal_split_size=split)
    return film


def test_freenoise_with_one_window_is_the_usual_film():
    film = tiny("animatediff")
    start = latents(3, 1, 4, 3, 8, 8)
    expected = read(film, latents=start)
    film.pipe.enable_free_noise(context_length=3, context_stride=1, noise_type="random")
    assert relative_error(read(film, latents=start), expected) < ROUNDING
    assert {block.context_length for block in film.unet.modules() if hasattr(block, "context_length")} == {3}


@pytest.mark.parametrize(("links", "split"), [("both", None), ("both", 4), ("attention", 1)])
def test_freenoise_whole_and_split_computes_what_the_plain_computation_says(links: str, split: int | None):
    changes = {"latents": latents(3, 1, 4, 5, 8, 8), "num_frames": 5}
    expected = plainly(film_pipeline(stride=2), links, **changes)
    film = film_pipeline(split=split, stride=2)
    plain = film(**changes)
    ours = read(film, links, **changes)
    assert relative_error(ours, expected) < ROUNDING
    assert torch.equal(film(**changes), plain)
    assert relative_error(ours, plain) > 1e-3
    assert {cut.split_size for cut in film.unet.modules() if hasattr(cut, "split_size")} <= {split, 7}


@pytest.mark.parametrize("links", ["attention", "adain"])
def test_chunks_that_begin_inside_the_block_are_followed(links: str):
    changes = {"latents": latents(3, 1, 4, 5, 8, 8), "num_frames": 5}
    expected = read(film_pipeline(), links, **changes)
    film = tiny("animatediff")
    with reference(film.pipe, Reference(latents=HERO), links=LINKS[links], noise=noise()):
        film.pipe.enable_free_noise(context_length=3, context_stride=1, noise_type="random")
        film.pipe.enable_free_noise_split_inference(spatial_split_size=7, temporal_split_size=4)
        assert relative_error(film(**changes), expected) < ROUNDING
