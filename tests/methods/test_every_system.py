"""The published systems lead the life of a diffusers pipeline: one set of claims, every system.

Tiny networks with random weights; what a system computes is tested in its own file and against golden cases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image

from referencenet import BankSeries, ReferenceBank
from systems import SIZE, System, every_system, every_system_in_time
from tiny import picture
from tolerances import ROUNDING, relative_error
from traces import pipeline_traces

# --- results ----------------------------------------------------------------------------------------------------------


@every_system_in_time
def test_a_seed_decides_the_result_and_the_global_generator_stays_where_it_was(system: System) -> None:
    state = torch.get_rng_state()
    pipe = system.make()
    first = system.call(pipe)
    assert torch.equal(system.call(pipe), first)
    assert torch.equal(system.call(system.make()), first)
    assert not torch.equal(system.call(pipe, seed=1), first)
    assert torch.equal(torch.get_rng_state(), state)


@every_system_in_time
def test_noise_of_the_scheduler_comes_from_the_generator(system: System) -> None:
    state = torch.get_rng_state()
    pipe = system.make()
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=False)
    first = system.call(pipe)
    assert torch.equal(system.call(pipe), first)
    assert torch.equal(torch.get_rng_state(), state)


@every_system_in_time
def test_a_list_of_generators_makes_each_result_as_if_alone(system: System) -> None:
    pipe = system.make()
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    # what is drawn of a reference that is written, one generator draws
    reference = {system.reference: system.write(pipe)} if system.writes else {}
    both = system.call(pipe, generator=generators, **{system.several: 2}, **reference)
    for row, seed in enumerate((5, 6)):
        alone = system.call(pipe, seed=seed, **reference)
        assert relative_error(both[row : row + 1], alone) < ROUNDING


@every_system
def test_a_list_of_generators_of_another_length_is_refused(system: System) -> None:
    pipe = system.make()
    with pytest.raises(ValueError, match="generators"):
        system.call(pipe, generator=[torch.Generator()] * 3, **{system.several: 2})


@every_system_in_time
def test_several_results_of_a_call_differ_in_their_noise_only(system: System) -> None:
    pipe = system.make()
    results = system.call(pipe, **{system.several: 3})
    assert results.shape[0] == 3
    assert relative_error(results[1], results[0]) > 1e-2
    assert relative_error(results[2], results[1]) > 1e-2


@every_system_in_time
def test_kinds_of_output_are_one_result(system: System) -> None:
    pipe = system.make()
    kinds = {kind: system.call(pipe, num_inference_steps=1, output_type=kind) for kind in ("pt", "np", "pil")}
    tensor, array, pictures = kinds["pt"], kinds["np"], kinds["pil"]
    if system.is_film:
        tensor, array, pictures = tensor[0], array[0], pictures[0]
    assert tensor.shape[-2:] == system.size[::-1]
    assert all(isinstance(image, Image.Image) for image in pictures)
    assert np.array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    assert np.abs(np.asarray(pictures[0]) / 255 - array[0]).max() <= 0.5 / 255 + 1e-6


@every_system_in_time
def test_the_outputs_object_holds_what_the_tuple_holds(system: System) -> None:
    pipe = system.make()
    options = {"width": system.size[0], "height": system.size[1], "num_inference_steps": 1, "output_type": "latent"}
    output = pipe(**system.given | options, generator=torch.Generator().manual_seed(0))
    results = output.frames if system.is_film else output.images
    assert torch.equal(results, system.call(pipe, num_inference_steps=1))


@every_system_in_time
def test_the_progress_bar_counts_the_timesteps(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = system.make()
    system.call(pipe, num_inference_steps=6)
    assert not capsys.readouterr().err
    pipe.set_progress_bar_config(disable=False)
    system.call(pipe, num_inference_steps=6)
    assert f"{pipe.num_timesteps}/{pipe.num_timesteps}" in capsys.readouterr().err
    assert pipe.num_timesteps == len(pipe.scheduler.timesteps)


@every_system_in_time
@pytest.mark.parametrize("form", [[picture(1, SIZE)], np.asarray(picture(1, SIZE))[None] / 255], ids=["list", "array"])
def test_one_picture_in_a_list_or_an_array_of_one_is_that_picture(system: System, form: Any) -> None:
    if system.reference in ("parts", "portrait"):
        pytest.skip("it takes pictures with what is known of them")
    pipe = system.make()
    plain = system.call(pipe, **{system.reference: picture(1, SIZE)})
    assert relative_error(system.call(pipe, **{system.reference: form}), plain) < ROUNDING


# --- schedulers -------------------------------------------------------------------------------------------------------


@every_system_in_time
@pytest.mark.parametrize("scheduler", [EulerAncestralDiscreteScheduler, UniPCMultistepScheduler])
def test_schedulers_of_diffusers_serve(system: System, scheduler: Any) -> None:
    pipe = system.make()
    published = system.call(pipe, num_inference_steps=4)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=False)
    other = system.call(pipe, num_inference_steps=4)
    assert other.dtype == published.dtype
    assert 1e-6 < relative_error(other, published) < float("inf")


@every_system
@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_an_exchanged_scheduler_keeps_the_noise_schedule(system: System, scheduler: Any) -> None:
    own = system.make().scheduler
    other = scheduler.from_config(own.config)
    noise, clean = torch.ones(3, 1, 1, 1), torch.zeros(3, 1, 1, 1)
    timesteps = torch.tensor([100, 500, 900])
    expected = own.add_noise(clean, noise, timesteps).flatten()  # the noise's share at each timestep
    assert relative_error((1 - other.alphas_cumprod[timesteps]).sqrt().float(), expected) < 1e-5
    assert other.config.prediction_type == own.config.prediction_type


# --- while it runs ----------------------------------------------------------------------------------------------------


@every_system_in_time
def test_a_callback_sees_every_step_and_its_latents_are_taken(system: System) -> None:
    pipe = system.make()
    seen: list[int] = []

    def halve_last(running: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        assert running is pipe
        seen.append(step)
        return {"latents": tensors["latents"] / 2} if step == running.num_timesteps - 1 else {}

    changed = system.call(pipe, num_inference_steps=2, callback_on_step_end=halve_last)
    assert seen == list(range(pipe.num_timesteps))
    assert torch.equal(changed * 2, system.call(pipe, num_inference_steps=2))


@every_system_in_time
def test_an_interrupted_call_ends_early_and_the_next_is_whole(system: System) -> None:
    pipe = system.make()
    whole = system.call(pipe)
    kept: list[torch.Tensor] = []

    def interrupt(running: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        kept.append(tensors["latents"])
        running._interrupt = True
        return {}

    early = system.call(pipe, callback_on_step_end=interrupt)
    assert len(kept) == 1
    assert torch.equal(early, pipe.decode(kept[0], "latent"))
    assert torch.equal(system.call(pipe), whole)


@every_system_in_time
def test_guidance_changed_by_a_callback_counts_from_the_next_step(system: System) -> None:
    pipe = system.make()
    assert pipe.guidance_scale == pipe.spec.scale
    assert not pipe.interrupt
    rows: list[int] = []
    by_step: list[int] = []
    handle = pipe.unet.conv_out.register_forward_hook(lambda _module, args, _output: rows.append(len(args[0])))

    def stop_guiding(running: Any, *_: Any) -> dict[str, Any]:
        by_step.append(sum(rows))  # in one batch, or pass by pass
        rows.clear()
        running._guidance_scale = 0.0
        assert running.guidance_scale == 0
        assert running.do_classifier_free_guidance == running.spec.guidance.is_guided(0.0)
        return {}

    unguided = system.call(pipe, callback_on_step_end=stop_guiding)
    handle.remove()
    assert by_step[0] > by_step[-1] or pipe.spec.guidance.is_guided(0.0)
    assert not torch.equal(unguided, system.call(pipe))
    assert pipe.guidance_scale == pipe.spec.scale


@every_system_in_time
def test_nothing_of_a_call_stays_on_the_networks_also_after_an_exception(system: System) -> None:
    pipe = system.make()
    system.call(pipe)
    before = pipeline_traces(pipe)

    def fail(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        system.call(pipe, callback_on_step_end=fail)
    system.call(pipe)
    assert pipeline_traces(pipe) == before


# --- references -------------------------------------------------------------------------------------------------------


@every_system_in_time
def test_what_write_wrote_is_saved_and_serves_as_the_reference(system: System, tmp_path: Path) -> None:
    pipe = system.make()
    if not system.writes:
        with pytest.raises(ValueError, match="reads no bank; give the reference itself to each call"):
            system.write(pipe)
        return
    state = torch.get_rng_state()
    written = system.write(pipe)
    assert torch.equal(torch.get_rng_state(), state)
    written.save(tmp_path / "reference.safetensors")
    assert abs((tmp_path / "reference.safetensors").stat().st_size - written.nbytes) < 200_000  # names, at tiny size
    read = (BankSeries if system.writes_each_step else ReferenceBank).load(tmp_path / "reference.safetensors")
    without = system.kind(**pipe.components | {"reference_unet": None})
    without.set_progress_bar_config(disable=True)
    first = system.call(pipe, **{system.reference: written}, latents=system.noise())
    assert torch.equal(system.call(without, **{system.reference: read}, latents=system.noise()), first)
    with pytest.raises(ValueError, match="reference_unet"):
        system.call(without)


@every_system_in_time
def test_a_bank_is_rounded_to_half_precision_where_that_is_asked(system: System) -> None:
    pipe = system.make()
    if not system.writes:
        with pytest.raises(ValueError, match="half_precision_bank is for systems that read a bank"):
            system.call(pipe, half_precision_bank=True)
        return
    for given in ({}, {system.reference: system.write(pipe)}):
        whole, half = (system.call(pipe, **given, half_precision_bank=rounds) for rounds in (False, True))
        assert 0 < relative_error(half, whole) < 0.02


@every_system
def test_a_series_is_refused_where_steps_size_or_scheduler_are_others(system: System) -> None:
    if not system.writes_each_step:
        pytest.skip("nothing is written at every step")
    pipe = system.make()
    given = {system.reference: system.write(pipe)}
    for changes, named in (({"num_inference_steps": 3}, "steps"), ({"width": 64}, "64 x 24")):
        with pytest.raises(ValueError, match=named):
            system.call(pipe, **given, **changes)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match="EulerDiscreteScheduler"):
        system.call(pipe, **given)


@every_system
def test_a_declaration_tells_of_itself(system: System) -> None:
    text = str(system.make().spec)
    for name in ("write", "link", "guidance", "conditions", "scheduler", "steps"):
        assert f"\n{name}" in f"\n{text}"
