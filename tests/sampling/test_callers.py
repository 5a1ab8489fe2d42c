"""Whichever pipeline calls a linked UNet is the one that counts; what a call does not say is refused, never guessed."""

from __future__ import annotations

import functools
import inspect
import threading
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipelineLegacy,
    StableDiffusionPanoramaPipeline,
    StableDiffusionPipeline,
    StableDiffusionSAGPipeline,
)
from diffusers.hooks import PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.pipelines.deprecated.paint_by_example.image_encoder import PaintByExampleImageEncoder
from diffusers.pipelines.deprecated.paint_by_example.pipeline_paint_by_example import PaintByExamplePipeline
from transformers import CLIPImageProcessor, CLIPVisionConfig

from referencenet import Reference, reference, share
from tiny import CONTEXT, Tiny, half_mask, latents, picture, scheduler, tiny
from tolerances import ROUNDING, relative_error

pytestmark = pytest.mark.filterwarnings("ignore:The class .*InpaintPipelineLegacy.* is deprecated:FutureWarning")

HERO = Reference(picture(1))
IMG2IMG = {"prompt": "a knight", "image": picture(10, (96, 64)), "strength": 0.7, "num_inference_steps": 4}


def sharing(pipe: Any, cls: type[DiffusionPipeline], **changes: Any) -> Any:
    """A pipeline of another class on the same parts."""
    names = inspect.signature(cls.__init__).parameters
    given = pipe.components | {"requires_safety_checker": False} | changes
    made: Any = cls(**{name: part for name, part in given.items() if name in names})
    made.set_progress_bar_config(disable=True)
    return made


def detailed(pipe: Any, **changes: Any) -> torch.Tensor:
    """A second pass: image to image at another size and guidance."""
    generator = torch.Generator().manual_seed(7)
    return pipe(**(IMG2IMG | {"generator": generator, "guidance_scale": 3.0, "output_type": "latent"} | changes))[0]


def written(pipe: Any, hero: Reference, arguments: dict[str, Any]) -> tuple[list[int], list[float], list[float]]:
    """Rows of every pass, timesteps of the write passes and of the others, at style fidelity 1."""
    rows: list[int] = []
    writes: list[float] = []
    reads: list[float] = []

    def look(_: Any, args: Any, kwargs: Any) -> None:
        rows.append(len(args[0]))
        (writes if rows[-1] == 1 else reads).append(float(args[1] if len(args) > 1 else kwargs["timestep"]))

    handle = pipe.unet.register_forward_pre_hook(look, with_kwargs=True)
    with handle, reference(pipe, hero, style_fidelity=1.0):
        pipe(**({"prompt": "a knight", "guidance_scale": 3.0, "output_type": "latent"} | arguments))
    return rows, writes, reads


# --- pipelines that share a UNet --------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False], ids=["after the linked one", "alone"])
@pytest.mark.parametrize(
    "link", [lambda pipe: reference(pipe, HERO, style_fidelity=1.0), share], ids=["reference", "share"]
)
def test_a_pipeline_that_shares_the_unet_reads_as_if_it_were_linked_itself(link: Any, first: bool):
    pipeline = tiny("sd")
    second = sharing(pipeline.pipe, StableDiffusionImg2ImgPipeline)
    second.scheduler = EulerDiscreteScheduler.from_config(scheduler().config)
    changes = {"image": [picture(10, (96, 64)), picture(11, (96, 64))], "prompt": ["a knight", "a wizard"]}
    plain = detailed(second, **changes)
    with link(second):
        expected = detailed(second, **changes)
    with link(pipeline.pipe):
        if first:
            pipeline(guidance_scale=1.0)
        assert torch.equal(detailed(second, **changes), expected)
        alone = pipeline(num_images_per_prompt=2)
    assert relative_error(expected, plain) > 1e-3
    assert torch.equal(detailed(second, **changes), plain)
    with link(pipeline.pipe):
        assert torch.equal(pipeline(num_images_per_prompt=2), alone)


def test_a_pipeline_made_inside_the_block_reads_as_well():
    pipeline = tiny("sd")
    with reference(pipeline.pipe, HERO):
        second = StableDiffusionImg2ImgPipeline.from_pipe(pipeline.pipe)
        second.set_progress_bar_config(disable=True)
        inside = detailed(second)
    with reference(second, HERO):
        assert torch.equal(detailed(second), inside)


def test_a_pipeline_called_from_anothers_callback_does_not_disturb_it():
    pipeline = tiny("sd")
    second = sharing(pipeline.pipe, StableDiffusionImg2ImgPipeline, scheduler=scheduler())
    previews: list[torch.Tensor] = []

    def preview(pipe: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
        previews.append(detailed(second))
        return inputs

    with reference(pipeline.pipe, HERO, noise="fixed"):
        alone, expected = pipeline(), detailed(second)
        assert torch.equal(pipeline(callback_on_step_end=preview), alone)
    assert all(torch.equal(each, expected) for each in previews)


def test_a_pipeline_that_has_the_unet_uncompiled_reads_as_well():
    pipeline = tiny("sd")
    second = sharing(pipeline.pipe, StableDiffusionImg2ImgPipeline)
    with reference(second, HERO):
        expected = detailed(second)
    torch._dynamo.reset()
    pipeline.pipe.unet = torch.compile(pipeline.pipe.unet, backend="eager")
    with reference(pipeline.pipe, HERO):
        assert torch.equal(detailed(second), expected)
    torch._dynamo.reset()


class Passing(torch.nn.Module):
    """Hands every call on to a network, as somebody's wrapper does."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config, self.dtype, self.device = inner, inner.config, inner.dtype, inner.device

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def test_a_unet_that_is_wrapped_inside_the_block_reads_as_well():
    pipeline = tiny("sd")
    unet = pipeline.unet
    with reference(pipeline.pipe, HERO):
        expected = pipeline()
        pipeline.pipe.unet = Passing(unet)
        assert torch.equal(pipeline(), expected)
    with pytest.raises(TypeError, match="denoiser of StableDiffusionPipeline is a Passing"):
        with reference(pipeline.pipe, HERO):
            pass


def test_a_pipeline_of_a_kind_that_cannot_read_is_refused_when_it_calls():
    pipeline = tiny("sd")
    second = sharing(pipeline.pipe, StableDiffusionSAGPipeline)
    with reference(pipeline.pipe, HERO):
        with pytest.raises(TypeError, match="StableDiffusionSAGPipeline keeps the attention map"):
            second("a knight", num_inference_steps=1)
        with pytest.raises(TypeError, match=r"CrossAttnStoreProcessor now.* take another"):  # which it left behind
            pipeline()
        pipeline.unet.set_attn_processor(AttnProcessor2_0())
        pipeline()


def test_outside_of_a_pipelines_call_the_linked_unet_is_refused():
    pipeline = tiny("sd")
    with reference(pipeline.pipe, HERO), pytest.raises(RuntimeError, match="outside of a pipeline's call"):
        pipeline.unet(latents(1), 10, latents(2, 1, 5, CONTEXT))


@pytest.mark.parametrize("link", [lambda pipe: reference(pipe, HERO), share], ids=["reference", "share"])
def test_another_thread_is_refused_and_the_owners_call_is_whole(link: Any):
    pipeline = tiny("sd")
    second = sharing(pipeline.pipe, StableDiffusionPipeline, scheduler=scheduler())
    told: list[BaseException] = []

    def plain_request() -> None:
        try:
            second("a wizard", num_inference_steps=1, output_type="latent")
        except RuntimeError as error:
            told.append(error)

    def meanwhile(*_: Any) -> None:
        thread = threading.Thread(target=plain_request, name="request 2")
        thread.start()
        thread.join()

    with link(pipeline.pipe):
        expected = pipeline(num_images_per_prompt=2)
        with pipeline.unet.mid_block.register_forward_hook(meanwhile):
            assert torch.equal(pipeline(num_images_per_prompt=2), expected)
    assert told
    assert all("'request 2'" in str(error) and "'MainThread'" in str(error) for error in told)


# --- guidance ---------------------------------------------------------------------------------------------------------


def test_a_flag_that_is_a_variable_of_the_call_counts():
    legacy = sharing(tiny("sd").pipe, StableDiffusionInpaintPipelineLegacy)
    arguments = {"image": picture(10), "mask_image": half_mask(), "strength": 1.0, "num_inference_steps": 2}
    assert sorted(written(legacy, HERO, arguments)[0]) == [1, 1, 2, 2]


def test_a_panorama_of_one_view_is_the_usual_picture():
    pipeline = tiny("sd")
    panorama = Tiny("panorama", sharing(pipeline.pipe, StableDiffusionPanoramaPipeline), pipeline.arguments)
    with reference(pipeline.pipe, HERO, style_fidelity=1.0):
        usual = pipeline()
        assert relative_error(panorama(height=64, width=64), usual) < ROUNDING


def test_rows_in_an_order_of_their_own_are_refused():
    """Two prompts at once: the panorama hands its UNet the views picture by picture, but the words part by part."""
    panorama = sharing(tiny("sd").pipe, StableDiffusionPanoramaPipeline)
    with reference(panorama, HERO), pytest.raises(ValueError, match="in an order of its own"):
        panorama(["a knight", "a wizard"], height=64, width=64, num_inference_steps=1)


class Wordless(StableDiffusionPipeline):
    """Has a loop of its own that says nothing of guidance and steps."""

    def __call__(self, guided: bool) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, words = latents(3), latents(4, 2 if guided else 1, 5, CONTEXT)
        self.scheduler.set_timesteps(3)
        for t in self.scheduler.timesteps:
            both = torch.cat([x, x]) if guided else x
            predicted = self.unet(both, t, encoder_hidden_states=words).sample
            predicted = predicted[:1] + 3.0 * (predicted[-1:] - predicted[:1])
            x = self.scheduler.step(predicted, t, x).prev_sample
        return x

    @property
    def do_classifier_free_guidance(self) -> bool:
        raise AttributeError("nobody said")


def test_a_pipeline_that_does_not_say_whether_it_is_guided_is_refused_until_the_user_says_it():
    pipe = sharing(tiny("sd").pipe, Wordless)
    for link in (reference(pipe, HERO), share(pipe)):
        with link, torch.no_grad(), pytest.raises(ValueError, match="give guided=True"):
            pipe(guided=True)
    with torch.no_grad():
        plain = pipe(guided=True)
        results: list[torch.Tensor] = []
        for style_fidelity in (0.0, 1.0):
            with reference(
                pipe, Reference(latents=latents(9)), style_fidelity=style_fidelity, guided=True, noise="fixed"
            ):
                results.append(pipe(guided=True))
        with share(pipe, guided=False):
            assert relative_error(pipe(guided=False), pipe(guided=False)) == 0
    assert relative_error(results[0], results[1]) > 1e-3
    assert relative_error(results[0], plain) > 1e-3


class Doubling(Wordless):
    """Its own `latents` hold the doubled batch, and its own scheduler leads them."""

    def __call__(self, words: torch.Tensor, scheduler: Any) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        scheduler.set_timesteps(3)
        latents = torch.cat([globals()["latents"](3)] * 2) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            given = scheduler.scale_model_input(latents, t)
            first, second = self.unet(given, t, encoder_hidden_states=words).sample.chunk(2)
            latents = scheduler.step(torch.cat([first + 3.0 * (second - first)] * 2), t, latents).prev_sample
        return latents


@torch.no_grad()
def test_latents_that_were_doubled_before_are_no_pictures_of_their_own():
    pipe, words = sharing(tiny("sd").pipe, Doubling), latents(4, 2, 5, CONTEXT)
    led_by = EulerDiscreteScheduler.from_config(scheduler().config, use_karras_sigmas=True)
    with reference(pipe, HERO), pytest.raises(ValueError, match="give guided=True"):
        pipe(words, led_by)
    seen: list[torch.Tensor] = []
    noise = [latents(20 + step) for step in range(3)]
    handle = pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with handle, reference(pipe, Reference(latents=latents(9)), guided=True, style_fidelity=1.0, noise=noise):
        pipe(words, led_by)
    assert [len(sample) for sample in seen] == [2, 1] * 3
    for sample, sigma, drawn in zip(seen[1::2], led_by.sigmas, noise, strict=False):  # of the scheduler that leads
        assert relative_error(sample, (latents(9) + sigma * drawn) / (1 + sigma**2) ** 0.5) < ROUNDING


def test_a_batch_that_does_not_fit_what_the_pipeline_says_is_refused():
    pipeline = tiny("sd")

    def twice(module: Any, args: Any, kwargs: Any) -> Any:  # noqa: ARG001 - a hook's signature
        kwargs = kwargs | {"encoder_hidden_states": torch.cat([kwargs["encoder_hidden_states"]] * 2)}
        return (torch.cat([args[0]] * 2), *args[1:]), kwargs

    handle = pipeline.unet.register_forward_pre_hook(twice, with_kwargs=True)
    with handle, reference(pipeline.pipe, HERO), pytest.raises(ValueError, match="4 rows for 1 latents"):
        pipeline()


# --- steps ------------------------------------------------------------------------------------------------------------


def test_a_time_range_is_of_steps_where_a_step_has_several_passes():
    panorama = sharing(tiny("sd").pipe, StableDiffusionPanoramaPipeline)
    arguments = {"height": 64, "width": 576, "num_inference_steps": 4}
    _, writes, reads = written(panorama, Reference(latents=latents(9), end=0.5), arguments)
    assert len(reads) == 8
    assert writes == reads[:4]


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_time_range_is_of_the_steps_that_run_where_the_pipeline_has_no_count(strength: float):
    legacy = sharing(tiny("sd").pipe, StableDiffusionInpaintPipelineLegacy)
    arguments = {"image": picture(10), "mask_image": half_mask(), "strength": strength, "num_inference_steps": 8}
    _, writes, reads = written(legacy, Reference(picture(1), end=0.5), arguments)
    assert len(reads) == 8 * strength
    assert writes == reads[: len(reads) // 2]


def test_a_time_range_follows_diffusers_rule_where_timesteps_occur_twice():
    pipeline = tiny("sd")
    pipeline.pipe.scheduler = HeunDiscreteScheduler.from_config(scheduler().config)
    _, writes, reads = written(pipeline.pipe, Reference(picture(1), start=0.5), {"num_inference_steps": 4})
    assert len(reads) == 7
    assert writes == reads[4:]  # i / 7 >= 0.5


def test_a_step_that_cannot_be_known_is_refused_only_where_it_matters():
    pipe = sharing(tiny("sd").pipe, Wordless)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    with reference(pipe, HERO, guided=True), torch.no_grad():
        pipe(guided=True)
    pipe.scheduler = HeunDiscreteScheduler.from_config(scheduler().config)
    hero = Reference(picture(1), start=0.5)
    with reference(pipe, hero, guided=True), torch.no_grad(), pytest.raises(ValueError, match="does not say at which"):
        pipe(guided=True)


# --- channels, frames, functions --------------------------------------------------------------------------------------


def test_channels_in_an_order_of_their_own_are_refused():
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 5, "num_attention_heads": 2}
    config = CLIPVisionConfig(projection_dim=CONTEXT, image_size=32, patch_size=8, **sizes)
    parts = tiny("inpaint9").pipe.components
    pipe = PaintByExamplePipeline(
        **{name: parts[name] for name in ("vae", "unet", "scheduler", "safety_checker")},
        image_encoder=PaintByExampleImageEncoder(config, proj_size=CONTEXT).eval(),
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    pictures = {"example_image": picture(2), "image": picture(3), "mask_image": half_mask()}
    with reference(pipe, HERO), pytest.raises(ValueError, match="channel 4 is not a mask"):
        pipe(**pictures, height=64, width=64, num_inference_steps=1)


@pytest.mark.parametrize("where", ["", "mid_block", "down_blocks.0.attentions.0"])
def test_a_forward_that_another_function_replaced_is_refused(where: str):
    """As caches between steps do, on the UNet or on its blocks, also those that keep the signature."""
    pipeline = tiny("sd")
    module = pipeline.unet.get_submodule(where)
    inner = module.forward
    wrapper = functools.wraps(inner)(lambda *args, **kwargs: inner(*args, **kwargs))
    with reference(pipeline.pipe, HERO):
        module.forward = wrapper
        with pytest.raises(TypeError, match=f"{where}.* forward has been replaced"):
            pipeline()
        del module.forward
        pipeline()
    module.forward = wrapper
    pipeline()
    with pytest.raises(TypeError, match="forward has been replaced"), reference(pipeline.pipe, HERO):
        pass
    module.forward = inner  # its own again, as hooks leave it when they are taken off
    with reference(pipeline.pipe, HERO):
        pipeline()


def test_attention_that_is_skipped_between_steps_is_refused():
    pipeline = tiny("sd")
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
    )
    apply_pyramid_attention_broadcast(pipeline.unet, config)
    with pytest.raises(TypeError, match=r"attn1 in .* diffusers' pyramid"), reference(pipeline.pipe, HERO):
        pass


def test_a_forward_that_was_compiled_says_what_to_compile():
    pipeline = tiny("sd")
    pipeline.unet.forward = torch.compile(pipeline.unet.forward, backend="eager")
    with pytest.raises(TypeError, match=r"pipe\.unet = torch\.compile"), reference(pipeline.pipe, HERO):
        pass
