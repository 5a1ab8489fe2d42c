"""Systems in several threads: on one pipeline one after the other, on replicas at once, equal to the bit."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch

from referencenet import BusyError, replica
from referencenet.links.turns import waiting_threads
from referencenet.pipelines.in_turn import COMPUTES_ONLY
from systems import SYSTEMS, System, every_system, every_system_in_time
from threads import all_of, in_thread, wait_until

PICTURES, FILMS, CHEAPEST = (
    next(each for each in SYSTEMS if each.name == name)
    for name in ("idm_vton", "magic_animate", "stable_garment.text2img")
)

GROUND = torch.tensor([68, 1, 84]).view(3, 1, 1) / 255  # of DensePose drawings


def same(made: list[Any], expected: list[Any]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))


def eight_times_ten(system: System) -> None:
    first = system.make()
    pipes = [first, *(replica(first) for _ in range(7))]

    def call(i: int, seeds: list[int]) -> dict[int, Any]:
        return {seed: system.call(pipes[i], seed=seed, num_inference_steps=1) for seed in seeds}

    alone = call(0, list(range(10)))
    for made in all_of([lambda i=i: call(i, [(i + j) % 10 for j in range(10)]) for i in range(8)]):
        assert all(torch.equal(made[seed], alone[seed]) for seed in range(10))


def test_eight_threads_give_ten_times_what_each_gives_alone():
    eight_times_ten(CHEAPEST)


@pytest.mark.slow
@every_system
def test_eight_threads_of_every_system_give_what_each_gives_alone(system: System):
    eight_times_ten(system)


@every_system_in_time
def test_two_threads_with_one_pipeline_wait_or_are_refused(system: System):
    """The first is held inside of its first pass, until the second has come."""
    pipe = system.make()
    alone = [system.call(pipe, seed=seed) for seed in range(2)]
    inside, goes_on = threading.Event(), threading.Event()

    def pause(*_: Any) -> None:
        inside.set()
        assert goes_on.wait(60)

    with pipe.unet.conv_in.register_forward_hook(pause):
        first = in_thread(lambda: system.call(pipe, seed=0), "request 1")
        assert inside.wait(60)
        refused = in_thread(lambda: system.call(pipe, seed=1), "request 2")
        with pytest.raises(BusyError, match=f"{type(pipe).__name__} is in use by the thread 'request 1'.*'request 2'"):
            refused.result()
        second = in_thread(lambda: system.call(pipe, seed=1, busy="wait"))
        wait_until(lambda: second.thread.ident in waiting_threads())
        goes_on.set()
        assert same([first.result(), second.result()], alone)


def test_pipelines_that_share_what_only_computes_run_side_by_side():
    first = PICTURES.make()
    parts = first.components
    shared = {name: part for name, part in parts.items() if isinstance(part, COMPUTES_ONLY)}
    assert {"vae", "text_encoder", "image_encoder"} <= shared.keys()
    second = type(first)(**copy.deepcopy({**parts, **dict.fromkeys(shared)}) | shared)
    second.set_progress_bar_config(disable=True)
    expected, meeting = PICTURES.call(first), threading.Barrier(2, timeout=30)

    def meet(*_: Any) -> None:
        meeting.wait()

    for pipe in (first, second):
        pipe.unet.conv_in.register_forward_hook(meet)
    assert same(all_of([lambda: PICTURES.call(first), lambda: PICTURES.call(second)]), [expected, expected])


def test_a_shared_denoiser_is_one_thread_at_a_time():
    first, second = PICTURES.make(), PICTURES.make()
    second.register_modules(unet=first.unet)
    refusals: list[BaseException] = []

    def meanwhile(*_: Any) -> None:
        with pytest.raises(BusyError, match="UNet") as error:
            in_thread(lambda: PICTURES.call(second)).result()
        refusals.append(error.value)

    with first.unet.conv_in.register_forward_hook(meanwhile):
        PICTURES.call(first, num_inference_steps=1)
    assert refusals


@pytest.mark.parametrize("how", ["write", "invert", "stream"])
def test_whatever_runs_networks_takes_its_turn(how: str):
    pipe = FILMS.make()
    size = {"width": FILMS.size[0], "height": FILMS.size[1]}
    given: dict[str, Any] = FILMS.given
    poses = GROUND.expand(2, 3, *reversed(FILMS.size))
    calls = {
        "write": lambda **busy: pipe.write(given["reference"], **size, num_inference_steps=1, **busy),
        "invert": lambda **busy: pipe.invert(given["poses"], **size, num_inference_steps=1, **busy),
        "stream": lambda **busy: list(
            pipe.stream(given["reference"], lambda start, stop: [poses[start:stop]], num_frames=2,
                        num_inference_steps=1, **size, **busy)
        ),
    }  # fmt: skip
    told: list[str] = []

    def meanwhile(*_: Any) -> None:
        if not told:
            told.append("")
            with pytest.raises(BusyError, match=type(pipe).__name__) as error:
                in_thread(calls[how]).result()
            told.append(str(error.value))

    with pipe.unet.conv_in.register_forward_hook(meanwhile):
        FILMS.call(pipe, num_inference_steps=1)
    assert len(told) == 2
    calls[how](busy="wait")


def test_a_stream_has_its_turn_until_it_is_closed():
    pipe = FILMS.make()
    poses = GROUND.expand(2, 3, *reversed(FILMS.size))
    size = {"width": FILMS.size[0], "height": FILMS.size[1]}
    arguments = size | {"num_frames": 2, "num_inference_steps": 1}
    stream = pipe.stream(FILMS.given["reference"], lambda start, stop: [poses[start:stop]], **arguments)
    FILMS.call(pipe, num_inference_steps=1)  # nothing was begun
    next(stream)
    waiter = in_thread(lambda: FILMS.call(pipe, num_inference_steps=1, busy="wait"))
    wait_until(lambda: waiter.thread.ident in waiting_threads())
    stream.close()
    waiter.result()


def test_a_wrong_option_teaches():
    with pytest.raises(ValueError, match="busy is 'queue'"):
        PICTURES.call(PICTURES.make(), busy="queue")
