"""`reference` and `share` in threads: on one UNet one after the other, on replicas at once, equal to the bit."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from referencenet import BusyError, Reference, Style, reference, replica, share
from referencenet.links import attach
from referencenet.links.turns import waiting_threads
from referencenet.sampling.latents import in_safe_precision
from threads import all_of, in_thread, wait_until
from tiny import Tiny, picture, scheduler, tiny
from traces import pipeline_traces

HERO = Reference(picture(1))
LINKS = {
    "reference": lambda pipe, busy="refuse": reference(pipe, HERO, links=["attention", "adain"], busy=busy),
    "share": lambda pipe, busy="refuse": share(pipe, Style(picture(2), how="noised"), group_norm=True, busy=busy),
}
TWO = {"prompt": ["a knight", "a wizard"], "num_inference_steps": 1}
every_link = pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)


def replicas(kind: str, count: int) -> list[Tiny]:
    first = tiny(kind)
    return [first, *(replace(first, pipe=replica(first.pipe)) for _ in range(count - 1))]


def with_own_scheduler(pipeline: Tiny) -> Any:
    """Another pipeline with the same networks."""
    parts = pipeline.pipe.components | {"scheduler": scheduler(), "requires_safety_checker": False}
    made = StableDiffusionPipeline(**parts)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("link", [LINKS["reference"], pytest.param(LINKS["share"], marks=pytest.mark.slow)], ids=LINKS)
def test_eight_threads_give_ten_times_what_each_gives_alone(link: Any):
    pipelines = replicas("sd", 8)

    def call(i: int, seeds: list[int]) -> dict[int, torch.Tensor]:
        with link(pipelines[i].pipe):
            return {seed: pipelines[i](**TWO, seed=seed) for seed in seeds}

    alone = call(0, list(range(10)))
    for made in all_of([lambda i=i: call(i, [(i + j) % 10 for j in range(10)]) for i in range(8)]):
        assert all(torch.equal(made[seed], alone[seed]) for seed in range(10))


def test_replicas_are_in_a_pass_at_the_same_moment():
    pipelines, meeting = replicas("sd", 2), threading.Barrier(2, timeout=30)
    expected = [pipeline(**TWO) for pipeline in pipelines]

    def meet(*_: Any) -> None:
        meeting.wait()

    def call(pipeline: Tiny) -> torch.Tensor:
        with (
            pipeline.unet.mid_block.register_forward_hook(meet),
            reference(pipeline.pipe, Reference(picture(1), strength=0.0)),
        ):
            return pipeline(**TWO)

    made = all_of([lambda pipeline=pipeline: call(pipeline) for pipeline in pipelines])
    assert all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))


@every_link
def test_threads_with_one_pipeline_wait_for_each_other(link: Any):
    pipeline = tiny("sd")
    asked = [TWO | {"seed": i, "num_inference_steps": 1 + i % 3} for i in range(6)]

    def request(arguments: dict[str, Any]) -> torch.Tensor:
        with link(pipeline.pipe, busy="wait"):
            return pipeline(**arguments)

    alone = [request(arguments) for arguments in asked]
    made = all_of([lambda arguments=arguments: request(arguments) for arguments in asked])
    assert all(torch.equal(one, other) for one, other in zip(made, alone, strict=True))


@every_link
def test_a_second_block_is_refused_by_name(link: Any):
    pipeline = tiny("sd")
    pipeline(**TWO)
    before = pipeline_traces(pipeline.pipe)
    message = r"UNet2DConditionModel is in use by the thread 'MainThread'.*'request 2'.*replica\(pipe\)"
    with link(pipeline.pipe):
        with pytest.raises(BusyError, match=message):
            in_thread(lambda: link(pipeline.pipe).__enter__(), "request 2").result()
        pipeline(**TWO)
    assert pipeline_traces(pipeline.pipe) == before


def test_a_second_block_in_the_same_thread_is_refused_and_never_waits():
    pipeline = tiny("sd")
    with reference(pipeline.pipe, HERO, busy="wait"), pytest.raises(ValueError, match="linked already"):
        reference(pipeline.pipe, HERO, busy="wait").__enter__()


def test_a_shared_scheduler_is_one_thread_at_a_time():
    first, second = replicas("sd", 2)
    second.pipe.scheduler = first.pipe.scheduler
    with reference(first.pipe, HERO), pytest.raises(BusyError, match="DDIMScheduler is in use"):
        in_thread(lambda: reference(second.pipe, HERO).__enter__()).result()


@every_link
def test_a_call_without_a_block_waits_for_the_block_and_is_plain(link: Any):
    pipeline = tiny("sd")
    second = StableDiffusionPipeline(
        **pipeline.pipe.components | {"scheduler": scheduler()}, requires_safety_checker=False
    )
    second.set_progress_bar_config(disable=True)
    plainly = replace(pipeline, pipe=second)
    plain = plainly(**TWO)
    with link(pipeline.pipe, busy="wait"):
        expected = pipeline(**TWO)
        outside = in_thread(lambda: plainly(**TWO))
        wait_until(lambda: outside.thread.ident in waiting_threads())
        assert torch.equal(pipeline(**TWO), expected)
        assert not outside.done
    assert torch.equal(outside.result(), plain)


@every_link
def test_a_pass_that_runs_already_goes_on_as_it_began(link: Any):
    """In its midst another thread begins a block, and is itself in a pass when it ends."""
    pipeline = tiny("sd")
    second = replace(pipeline, pipe=with_own_scheduler(pipeline))
    plain = second(**TWO)
    with link(pipeline.pipe):
        expected = pipeline(**TWO)
    events = {name: threading.Event() for name in ("running", "linked", "ended")}

    def pause(*_: Any) -> None:
        if threading.current_thread().name == "running":
            events["running"].set()
            assert events["linked"].wait(30)
        elif not events["linked"].is_set():
            events["linked"].set()
            assert events["ended"].wait(30)

    def run() -> torch.Tensor:
        try:
            return second(**TWO)
        finally:
            events["ended"].set()

    with pipeline.unet.down_blocks[0].resnets[0].register_forward_hook(pause):
        running = in_thread(run, "running")
        assert events["running"].wait(30)
        with link(pipeline.pipe):
            linked = pipeline(**TWO)
    assert torch.equal(running.result(), plain)
    assert torch.equal(linked, expected)


def test_threads_with_one_autoencoder_that_is_widened_take_turns():
    vae = tiny("sd").pipe.vae.half()
    vae.register_to_config(force_upcast=True)
    seen: list[torch.dtype] = []

    def use() -> None:
        with in_safe_precision(vae) as dtype:
            seen.append(dtype)

    with in_safe_precision(vae):
        other = in_thread(use)
        wait_until(lambda: other.thread.ident in waiting_threads())
        assert next(vae.parameters()).dtype == torch.float32
    other.result()
    assert seen == [torch.float32]
    assert next(vae.parameters()).dtype == torch.float16


def test_a_replica_shares_weights_and_nothing_that_a_call_changes():
    first, second = replicas("sdxl", 2)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        own, other = getattr(first.pipe, name), getattr(second.pipe, name)
        assert not {id(module) for module in own.modules()} & {id(module) for module in other.modules()}
        tensors = zip([*own.parameters(), *own.buffers()], [*other.parameters(), *other.buffers()], strict=True)
        assert all(one is two for one, two in tensors)
    for name in ("scheduler", "tokenizer", "image_processor"):
        assert getattr(first.pipe, name) is not getattr(second.pipe, name)
    assert isinstance(second.pipe.scheduler, DDIMScheduler)


def test_what_cannot_be_a_replica_teaches():
    pipeline = tiny("sd")
    with attach(pipeline.unet), pytest.raises(ValueError, match="the unet is linked now"):
        replica(pipeline.pipe)
    with pytest.raises(TypeError, match="was given a UNet2DConditionModel"):
        replica(pipeline.unet)
    pipeline.unet.compile(backend="eager")
    with pytest.raises(ValueError, match="the unet is compiled"):
        replica(pipeline.pipe)
    offloaded = tiny("sd").pipe
    offloaded.unet.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    with pytest.raises(ValueError, match="the unet has hooks that move"):
        replica(offloaded)
