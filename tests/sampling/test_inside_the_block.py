"""What users do inside the block: other pipelines, processors, adapters, types; each call has its own picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
)

from referencenet import Reference, reference
from tiny import half_mask, image_processor, ip_adapter_weights, latents, picture, refiner, scheduler, tiny
from tolerances import BFLOAT16, ROUNDING, relative_error
from traces import pipeline_traces

BOTH = ["attention", "adain"]
HERO = Reference(picture(1))


def pictured(pipe: Any, seed: int = 7, **changes: Any) -> torch.Tensor:
    """A pipeline's latents from a picture."""
    usual = {"prompt": "a knight", "image": picture(10, (96, 64)), "strength": 0.7, "num_inference_steps": 4}
    generator = torch.Generator().manual_seed(seed)
    return pipe(**(usual | {"generator": generator, "guidance_scale": 3.0, "output_type": "latent"} | changes))[0]


# --- several pipelines under one block --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "hires_class", "detailer_class"),
    [
        ("sd", StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline),
        ("sdxl", StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline),
    ],
)
def test_hires_pass_and_detailer_read_as_if_linked_alone(kind: str, hires_class: Any, detailer_class: Any):
    pipeline = tiny(kind)
    hires = hires_class.from_pipe(pipeline.pipe, scheduler=DPMSolverMultistepScheduler.from_config(scheduler().config))
    detailer = detailer_class.from_pipe(pipeline.pipe)
    painted = {"mask_image": half_mask("left", (64, 96)), "image": picture(3, (64, 96)), "height": 96, "width": 64}
    calls: dict[Any, Callable[[], torch.Tensor]] = {
        pipeline.pipe: lambda: pipeline(guidance_scale=1.0),
        hires: lambda: pictured(hires),
        detailer: lambda: pictured(detailer, guidance_scale=5.0, **painted),
    }
    plain, alone = [call() for call in calls.values()], []
    for pipe, call in calls.items():
        pipe.set_progress_bar_config(disable=True)
        with reference(pipe, HERO, links=BOTH):
            alone.append(call())
    with reference(pipeline.pipe, HERO, links=BOTH):
        together = [call() for call in calls.values()]
    for each, expected, without in zip(together, alone, plain, strict=True):
        assert torch.equal(each, expected)
        assert relative_error(expected, without) > 1e-3
    assert [torch.equal(call(), without) for call, without in zip(calls.values(), plain, strict=True)] == [True] * 3


def test_a_refiner_with_a_unet_of_its_own_reads_beside_the_base_and_is_plain_unless_linked():
    base, second = tiny("sdxl"), refiner()
    second.set_progress_bar_config(disable=True)

    def refined(first: torch.Tensor) -> torch.Tensor:
        return pictured(second, image=first, strength=0.3, denoising_start=0.5)

    early = {"num_inference_steps": 4, "denoising_end": 0.5}
    with reference(base.pipe, HERO):
        first = base(**early)
        beside_the_block = refined(first)
    assert torch.equal(refined(first), beside_the_block)
    assert relative_error(first, base(**early)) > 1e-3
    for own_size in (False, True):
        with reference(second, HERO, own_size=own_size):
            alone = refined(first)
        with reference(base.pipe, HERO), reference(second, HERO, own_size=own_size):
            assert torch.equal(refined(base(**early)), alone)
        assert relative_error(alone, beside_the_block) > 1e-3


# --- processors and adapters ------------------------------------------------------------------------------------------


SWITCHES: dict[str, Callable[[Any], Any]] = {
    "sliced": lambda pipe: pipe.enable_attention_slicing(1),
    "sliced and again not": lambda pipe: (pipe.enable_attention_slicing(1), pipe.disable_attention_slicing()),
    "fused": lambda pipe: pipe.fuse_qkv_projections(),
    "fused and again not": lambda pipe: (pipe.fuse_qkv_projections(), pipe.unfuse_qkv_projections()),
    "default": lambda pipe: pipe.unet.set_default_attn_processor(),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_processors_switched_inside_the_block_move_no_number(switch: str):
    pipeline = tiny("sd")
    plain = pipeline()
    with reference(pipeline.pipe, HERO, links=BOTH):
        expected = pipeline()
        SWITCHES[switch](pipeline.pipe)
        assert relative_error(pipeline(), expected) < ROUNDING
    assert relative_error(pipeline(), plain) < ROUNDING
    assert not [name for name in pipeline.unet.attn_processors.values() if type(name).__name__.startswith("Reference")]
    with reference(pipeline.pipe, HERO, links=BOTH):
        assert relative_error(pipeline(), expected) < ROUNDING


def test_an_ip_adapter_loaded_and_taken_away_inside_the_block_takes_part_meanwhile():
    usual = tiny("ip_adapter")
    with reference(usual.pipe, HERO, links=BOTH):
        expected = usual()
    pipeline = tiny("sd")
    parts = {"image_encoder": usual.pipe.image_encoder, "feature_extractor": image_processor()}
    pipeline.pipe.register_modules(**parts)
    before = pipeline_traces(pipeline.pipe)
    with reference(pipeline.pipe, HERO, links=BOTH):
        without = pipeline()
        weights = ip_adapter_weights(pipeline.unet)
        pipeline.pipe.load_ip_adapter(weights, subfolder="", weight_name="", low_cpu_mem_usage=False)
        assert torch.equal(pipeline(ip_adapter_image=picture(14)), expected)
        pipeline.pipe.unload_ip_adapter()
        assert torch.equal(pipeline(), without)
    pipeline.pipe.register_modules(**parts)
    assert {name: type(processor) for name, processor in pipeline.unet.attn_processors.items()} == {
        name: type(processor) for name, processor in tiny("sd").unet.attn_processors.items()
    }
    assert pipeline_traces(pipeline.pipe).keys() == before.keys()


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (10, 6)])
def test_regions_of_image_prompts_lie_over_a_reference_of_any_size(size: tuple[int, int]):
    pipeline = tiny("ip_adapter")
    region = torch.zeros(1, 1, 64, 64)
    region[..., :32] = 1.0  # the left half
    seen: list[Any] = []

    def look(_: Any, args: Any, kwargs: Any) -> None:
        seen.append((args[0].shape[-2:], kwargs["cross_attention_kwargs"]["ip_adapter_masks"]))

    hero = Reference(latents=latents(9, 1, 4, *size))
    handle = pipeline.unet.register_forward_pre_hook(look, with_kwargs=True)
    with handle, reference(pipeline.pipe, hero):
        pipeline(cross_attention_kwargs={"ip_adapter_masks": [region]})
    (height, width), (mask,) = seen[1]
    assert (height, width) == size
    assert mask.shape == (1, 1, 8 * height, 8 * width)
    assert bool((mask[..., : 4 * width] == 1).all())
    assert not mask[..., 4 * width :].any()
    assert seen[0][1][0] is region


@pytest.mark.parametrize("size", [(8, 8), (8, 16)])
def test_merged_tokens_are_those_of_the_pass_that_merges_them(size: tuple[int, int]):
    """A reference of another size is merged by its own, and the result by its own again."""
    tomesd = pytest.importorskip("tomesd")
    pipeline = tiny("sd")
    tomesd.apply_patch(pipeline.pipe, ratio=0.5, max_downsample=4, use_rand=False)
    sizes: list[Any] = []
    block = pipeline.unet.down_blocks[0].attentions[0].transformer_blocks[0]
    handle = block.register_forward_pre_hook(lambda module, args: sizes.append(module._tome_info["size"]))  # noqa: ARG005
    with handle, reference(pipeline.pipe, Reference(latents=latents(9, 1, 4, *size))):
        pipeline(num_inference_steps=1)
    assert sizes == [size, (8, 8)]


# --- types ------------------------------------------------------------------------------------------------------------


CASTS = {
    "bfloat16 kept, float32 computed": (torch.bfloat16, torch.float32),
    "float8 kept, bfloat16 computed": (torch.float8_e4m3fn, torch.bfloat16),
}


@pytest.mark.parametrize("style_fidelity", [0.5, 1.0])
@pytest.mark.parametrize("cast", CASTS)
def test_weights_kept_in_fewer_bits_are_cast_layer_by_layer(cast: str, style_fidelity: float):
    storage, compute = CASTS[cast]
    pipeline = tiny("sd")
    pipeline.pipe.to(compute)
    rounded = tiny("sd")
    rounded.pipe.to(compute)
    pipeline.unet.enable_layerwise_casting(storage_dtype=storage, compute_dtype=compute)
    for name, parameter in pipeline.unet.named_parameters():  # what casting leaves of them
        rounded.unet.get_parameter(name).data = parameter.data.to(compute)
    hero = Reference(latents=latents(9))
    results: list[torch.Tensor] = []
    for each in (pipeline, rounded):
        with reference(each.pipe, hero, links=BOTH, style_fidelity=style_fidelity, noise="fixed"):
            results.append(each())
    assert relative_error(*results) < (ROUNDING if compute == torch.float32 else BFLOAT16)
    assert relative_error(results[0], pipeline()) > 1e-3


def test_casting_that_begins_inside_the_block():
    pipeline = tiny("sd")
    with reference(pipeline.pipe, HERO):
        expected = pipeline()
        pipeline.unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
        assert relative_error(pipeline(), expected) < BFLOAT16
