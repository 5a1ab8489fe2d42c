"""What is attached comes off, whatever happens; what a call is given reaches the link; calls do not meet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import accelerate
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers.models.attention_processor import AttnProcessor

from referencenet import Reference, reference, share
from tiny import Tiny, half_mask, latents, picture, tiny
from tolerances import ROUNDING, relative_error
from traces import pipeline_traces

BOTH = ["attention", "adain"]


class UserError(Exception):
    """What a user's own code raises."""


def prepared(kind: str = "sd") -> tuple[Tiny, torch.Tensor, dict[str, Any]]:
    """A pipeline, its plain latents and its traces."""
    pipeline = tiny(kind)
    plain = pipeline()
    return pipeline, plain, pipeline_traces(pipeline.pipe)


def assert_untouched(pipeline: Tiny, plain: torch.Tensor, before: dict[str, Any]) -> None:
    assert pipeline_traces(pipeline.pipe) == before
    assert torch.equal(pipeline(), plain)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("sd", SystemExit), ("sdxl", KeyboardInterrupt), ("animatediff", UserError), ("lora", UserError)],
)
def test_an_exception_inside_detaches(kind: str, error: type[BaseException]):
    pipeline, plain, before = prepared(kind)
    with pytest.raises(error), reference(pipeline.pipe, picture(1), links=BOTH):  # noqa: PT012 - what follows the call counts
        pipeline()
        raise error
    assert_untouched(pipeline, plain, before)


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "site", ["conv_in", "down_blocks.0.attentions.0", "mid_block", "up_blocks.1.resnets.1", "conv_out"]
)
def test_an_exception_anywhere_in_a_pass_detaches(site: str, error: type[BaseException]):
    """The write pass comes first and ends early, so every module is interrupted in one of the passes."""
    pipeline, plain, before = prepared()
    for allowed in range(2):  # the first pass that reaches the module is interrupted, then the second
        seen: list[int] = []

        def interrupt(*_: Any, seen: list[int] = seen, allowed: int = allowed) -> None:
            seen.append(1)
            if len(seen) > allowed:
                raise error

        handle = pipeline.unet.get_submodule(site).register_forward_hook(interrupt)
        with pytest.raises(error), handle, reference(pipeline.pipe, picture(1), links=BOTH):
            pipeline()
        assert_untouched(pipeline, plain, before)


def test_after_an_exception_in_a_call_the_next_call_inside_is_right():
    pipeline = tiny("sd")

    def stop(*_: Any) -> dict[str, Any]:
        raise UserError

    with reference(pipeline.pipe, picture(1), links=BOTH):
        linked = pipeline()
        with pytest.raises(UserError):
            pipeline(callback_on_step_end=stop)
        assert torch.equal(pipeline(), linked)


@pytest.mark.parametrize("second", [lambda pipe: reference(pipe, picture(2)), share], ids=["reference", "share"])
def test_a_linked_pipeline_cannot_be_linked_again_and_the_outer_link_survives(second: Callable[[Any], Any]):
    pipeline, plain, before = prepared()
    with reference(pipeline.pipe, picture(1)):
        linked = pipeline()
        with pytest.raises(ValueError, match="linked already"), second(pipeline.pipe):
            pass
        assert torch.equal(pipeline(), linked)
    assert_untouched(pipeline, plain, before)


def test_a_pipeline_that_shares_a_linked_unet_cannot_be_linked():
    pipeline, plain, before = prepared()
    parts = {name: part for name, part in pipeline.pipe.components.items()}
    other = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    with reference(pipeline.pipe, picture(1)):
        with pytest.raises(ValueError, match="linked already"), reference(other, picture(2)):
            pass
    assert_untouched(pipeline, plain, before)


def test_one_context_serves_many_calls_and_many_contexts_follow_each_other():
    pipeline, plain, before = prepared()
    results = []
    for _ in range(3):
        with reference(pipeline.pipe, picture(1), links=BOTH):
            results += [pipeline(), pipeline()]
    assert all(torch.equal(result, results[0]) for result in results)
    assert_untouched(pipeline, plain, before)


def test_calls_of_different_kinds_inside_one_context_do_not_meet():
    pipeline = tiny("sd")
    changes = [
        {},
        {"guidance_scale": 1.0},
        {"prompt": ["a", "b"]},
        {"height": 32, "width": 48},
        {"num_inference_steps": 3},
    ]
    with reference(pipeline.pipe, picture(1), links=BOTH):
        forward = [pipeline(**change) for change in changes]
        backward = [pipeline(**change) for change in reversed(changes)]
    for first, second in zip(forward, reversed(backward), strict=True):
        assert torch.equal(first, second)


def test_two_links_on_two_pipelines_never_meet_and_may_end_in_any_order():
    first, second = tiny("sd"), tiny("sdxl")
    plain = first(), second()
    with reference(first.pipe, picture(1)):
        alone_first = first()
    with reference(second.pipe, picture(2), links="adain"):
        alone_second = second()
    outer, inner = ExitStack(), ExitStack()
    outer.enter_context(reference(first.pipe, picture(1)))
    inner.enter_context(reference(second.pipe, picture(2), links="adain"))
    assert torch.equal(first(), alone_first)
    assert torch.equal(second(), alone_second)
    outer.close()
    assert torch.equal(first(), plain[0])
    assert torch.equal(second(), alone_second)
    inner.close()
    assert torch.equal(second(), plain[1])


@pytest.mark.parametrize("kind", ["sd", "sdxl", "animatediff"])
def test_moving_the_pipeline_inside_is_not_undone_and_not_in_the_way(kind: str):
    pipeline, plain, before = prepared(kind)
    with reference(pipeline.pipe, picture(1), links=BOTH):
        single = pipeline()
        pipeline.pipe.to(torch.float64)
        double = pipeline(generator=None, latents=latents(3, *plain.shape).double())
        assert double.dtype == torch.float64
        pipeline.pipe.to("cpu", torch.float32)
        assert torch.equal(pipeline(), single)
    assert_untouched(pipeline, plain, before)


def test_a_pipeline_whose_unet_is_offloaded_can_be_linked_with_masks():
    hero = Reference(picture(1), mask=half_mask("left"), result_mask=half_mask("top"))
    usual = tiny("sd")
    with reference(usual.pipe, hero, links=BOTH):
        expected = usual()
    pipeline = tiny("sd")
    accelerate.cpu_offload(pipeline.unet, execution_device=torch.device("cpu"))
    plain = pipeline()
    before = pipeline_traces(pipeline.pipe)
    with reference(pipeline.pipe, hero, links=BOTH):
        assert torch.equal(pipeline(), expected)
    assert_untouched(pipeline, plain, before)


def test_bfloat16_pipelines_can_be_linked():
    pipeline = tiny("sd")
    with reference(pipeline.pipe, picture(1), links=BOTH):
        single = pipeline()
    pipeline.pipe.to(torch.bfloat16)
    with reference(pipeline.pipe, picture(1), links=BOTH):
        half = pipeline()
    assert half.dtype == torch.bfloat16
    assert relative_error(half, single) < 0.2  # another random generator's numbers would be far off: about 1


def test_the_model_inside_has_the_weights_and_keys_of_the_model_outside(tmp_path):
    pipeline = tiny("sd")
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    with reference(pipeline.pipe, picture(1), links=BOTH):
        inside = pipeline.unet.state_dict()
        assert list(inside) == list(before)
        assert all(torch.equal(inside[name], before[name]) for name in before)
        pipeline.unet.save_pretrained(tmp_path)
    assert torch.equal(type(pipeline.unet).from_pretrained(tmp_path).conv_in.weight, before["conv_in.weight"])


def test_step_callbacks_see_every_step_once_and_may_change_the_latents():
    pipeline = tiny("sd")
    seen: list[tuple[int, float]] = []

    def halve(pipe: Any, step: int, timestep: torch.Tensor, inputs: dict[str, Any]) -> dict[str, Any]:
        assert pipe is pipeline.pipe
        seen.append((step, float(timestep)))
        return {"latents": inputs["latents"] / 2}

    with reference(pipeline.pipe, picture(1)):
        untouched = pipeline(num_inference_steps=3)
        halved = pipeline(num_inference_steps=3, callback_on_step_end=halve)
    assert [step for step, _ in seen] == [0, 1, 2]
    assert not torch.allclose(untouched, halved)


def test_an_interrupted_call_ends_and_the_next_is_whole():
    pipeline = tiny("sd")

    def interrupt(pipe: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
        pipe._interrupt = step == 0
        return inputs

    with reference(pipeline.pipe, picture(1)):
        whole = pipeline(num_inference_steps=3)
        pipeline(num_inference_steps=3, callback_on_step_end=interrupt)
        assert torch.equal(pipeline(num_inference_steps=3), whole)


def test_the_same_seed_gives_the_same_picture_and_another_seed_another():
    pipeline = tiny("sd")
    with reference(pipeline.pipe, picture(1)):
        assert torch.equal(pipeline(seed=1), pipeline(seed=1))
        assert not torch.allclose(pipeline(seed=1), pipeline(seed=2))


@pytest.mark.parametrize("links", [["attention"], BOTH], ids=["attention", "both"])
@pytest.mark.parametrize("style_fidelity", [0.5, 1.0])
@pytest.mark.parametrize("hero", [Reference(picture(1)), Reference(latents=latents(99))], ids=["picture", "latents"])
def test_a_list_of_generators_makes_each_picture_as_if_alone(hero: Reference, links: list[str], style_fidelity: float):
    pipeline = tiny("sd")
    with reference(pipeline.pipe, hero, links=links, style_fidelity=style_fidelity):
        generators = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
        batch = pipeline(generator=generators, num_images_per_prompt=3)
        for row, seed in enumerate((5, 6, 7)):
            alone = pipeline(generator=[torch.Generator().manual_seed(seed)])
            assert relative_error(batch[row : row + 1], alone) < ROUNDING


def test_without_a_generator_the_global_one_is_used():
    pipeline = tiny("sd")
    state = torch.get_rng_state()
    with reference(pipeline.pipe, picture(1)):
        first = pipeline(generator=None)
        torch.set_rng_state(state)
        second = pipeline(generator=None)
    torch.set_rng_state(state)
    assert torch.equal(first, second)


def test_with_a_generator_the_global_one_is_left_alone():
    pipeline = tiny("sd")
    state = torch.get_rng_state()
    with reference(pipeline.pipe, picture(1), links=BOTH):
        pipeline()
    assert torch.equal(torch.get_rng_state(), state)


def test_fixed_noise_serves_the_whole_batch_by_one_write():
    """The rows that conv_in sees tell the passes: one per distinct prompt and half in a write, all in a read."""
    pipeline = tiny("sd")
    rows: list[int] = []
    handle = pipeline.unet.conv_in.register_forward_hook(lambda module, args, output: rows.append(args[0].shape[0]))  # noqa: ARG005
    with reference(pipeline.pipe, picture(1), noise="fixed"):
        pipeline(num_images_per_prompt=4)
    with reference(pipeline.pipe, picture(1), noise="fixed", style_fidelity=1.0):
        pipeline(num_images_per_prompt=4)
    handle.remove()
    assert rows == [2, 8, 2, 8] + [1, 8, 1, 8]


def test_fixed_noise_is_one_noise_for_all_steps():
    pipeline = tiny("sd")
    inputs: list[torch.Tensor] = []
    handle = pipeline.unet.conv_in.register_forward_hook(lambda module, args, output: inputs.append(args[0]))  # noqa: ARG005
    hero = latents(99)
    with reference(pipeline.pipe, Reference(latents=hero), noise="fixed"):
        pipeline()
    handle.remove()
    alphas = pipeline.pipe.scheduler.alphas_cumprod
    noises = []
    for written, timestep in zip(inputs[::2], pipeline.pipe.scheduler.timesteps, strict=True):
        noises.append((written - alphas[timestep].sqrt() * hero) / (1 - alphas[timestep]).sqrt())
    assert torch.allclose(noises[0], noises[1], atol=1e-4)
    assert torch.allclose(noises[0][0], noises[0][1], atol=1e-4)


def test_fresh_noise_is_new_at_every_step():
    pipeline = tiny("sd")
    inputs: list[torch.Tensor] = []
    handle = pipeline.unet.conv_in.register_forward_hook(lambda module, args, output: inputs.append(args[0]))  # noqa: ARG005
    with reference(pipeline.pipe, Reference(latents=torch.zeros(1, 4, 8, 8))):
        pipeline()
    handle.remove()
    first, second = (written[0] / written[0].std() for written in inputs[::2])
    assert not torch.allclose(first, second, atol=0.1)
    assert abs(float((first * second).mean())) < 0.3


SWITCHES: dict[str, Callable[[Any], Any]] = {
    "attention_slicing": lambda pipe: pipe.enable_attention_slicing(1),
    "fused_qkv": lambda pipe: pipe.fuse_qkv_projections(),
    "default_processors": lambda pipe: pipe.unet.set_default_attn_processor(),
    "channels_last": lambda pipe: pipe.unet.to(memory_format=torch.channels_last),
    "vae_slicing": lambda pipe: pipe.vae.enable_slicing(),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_diffusers_own_switches_keep_working_and_move_no_number(switch: str):
    usual = tiny("sd")
    with reference(usual.pipe, picture(1), links=BOTH):
        expected = usual()
    pipeline = tiny("sd")
    SWITCHES[switch](pipeline.pipe)
    plain = pipeline()
    before = pipeline_traces(pipeline.pipe)
    with reference(pipeline.pipe, picture(1), links=BOTH):
        linked = pipeline()
    assert_untouched(pipeline, plain, before)
    assert relative_error(linked, expected) < ROUNDING


def test_freeu_and_a_reference_both_take_part():
    pipeline = tiny("sd")
    with reference(pipeline.pipe, picture(1)):
        without = pipeline()
    pipeline.pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    plain = pipeline()
    before = pipeline_traces(pipeline.pipe)
    with reference(pipeline.pipe, picture(1)):
        linked = pipeline()
    assert_untouched(pipeline, plain, before)
    assert not torch.allclose(linked, plain, rtol=1e-3)
    assert not torch.allclose(linked, without, rtol=1e-3)


@pytest.mark.slow
def test_a_compiled_unet_can_be_linked_and_compiles_once():
    usual = tiny("sd")
    with reference(usual.pipe, picture(1), links=BOTH):
        expected = usual(num_inference_steps=3)
    pipeline = tiny("sd")
    torch._dynamo.reset()
    pipeline.pipe.unet = torch.compile(pipeline.pipe.unet, backend="eager", fullgraph=True)
    with reference(pipeline.pipe, picture(1), links=BOTH):
        pipeline(num_inference_steps=1)
        with torch._dynamo.config.patch(error_on_recompile=True):
            linked = pipeline(num_inference_steps=3)
    torch._dynamo.reset()
    assert relative_error(linked, expected) < ROUNDING


def test_a_processor_that_a_user_sets_inside_stays():
    pipeline = tiny("sd")
    with reference(pipeline.pipe, picture(1)):
        pipeline.unet.set_attn_processor(AttnProcessor())
    assert {type(processor) for processor in pipeline.unet.attn_processors.values()} == {AttnProcessor}


def test_a_copy_of_the_unet_made_before_is_never_touched():
    pipeline = tiny("sd")
    twin = copy.deepcopy(pipeline.unet)
    x, context = latents(1), latents(2, 1, 5, 16)
    before = twin(x, 10, context).sample
    with reference(pipeline.pipe, picture(1), links=BOTH):
        pipeline()
        assert torch.equal(twin(x, 10, context).sample, before)


def test_printing_the_link_shows_every_site():
    pipeline = tiny("sd")
    with reference(pipeline.pipe, picture(1), links=BOTH) as link:
        text = str(link)
    for name in ("down_blocks.0.attentions.0.transformer_blocks.0.attn1", "mid_block", "up_blocks.1.attentions.0"):
        assert name in text
