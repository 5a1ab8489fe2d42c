"""`write_every=k`, of `reference` and of every system that writes at every step: an approximation that says so."""

from typing import Any

import pytest
import torch

from referencenet import Reference, reference
from systems import System, every_system_in_time
from tiny import latents, picture, tiny
from tolerances import relative_error

BOTH = ["attention", "adain"]


def drawn(kind: str, steps: int, **options: Any) -> tuple[torch.Tensor, int]:
    """Latents, and how often the UNet ran beside its denoising passes."""
    pipeline, rows = tiny(kind), list[int]()
    first = pipeline.pipe.unet.conv_in
    with reference(pipeline.pipe, Reference(picture(1)), links=BOTH, **options):
        handle = first.register_forward_hook(lambda _module, args, _output: rows.append(len(args[0])))
        result = pipeline(num_inference_steps=steps)
        handle.remove()
    return result, len(rows) - steps


@pytest.mark.parametrize("kind", ["sd", "inpaint9", "sdxl"])
@pytest.mark.parametrize("noise", ["fresh", "fixed"])
def test_every_step_is_the_default_to_the_bit(kind: str, noise: str) -> None:
    expected, passes = drawn(kind, 3, noise=noise)
    once, same = drawn(kind, 3, noise=noise, write_every=1)
    assert torch.equal(once, expected)
    assert passes == same == 3


@pytest.mark.parametrize("style_fidelity", [0.5, 1.0])
@pytest.mark.parametrize("noise", ["fresh", "fixed"])
def test_every_second_step_halves_the_writing_and_changes_the_picture(noise: str, style_fidelity: float) -> None:
    options = {"noise": noise, "style_fidelity": style_fidelity}
    expected, _ = drawn("sd", 8, **options)
    halved, passes = drawn("sd", 8, **options, write_every=2)
    assert passes == 4
    assert 0 < relative_error(halved, expected) < 1
    assert drawn("sd", 8, **options, write_every=8)[1] == 1


def test_a_bank_of_other_rows_is_not_read_again() -> None:
    """Guidance that ends halfway leaves fewer rows, for which the reference is written anew."""
    pipeline, rows = tiny("sd"), list[int]()

    def unguided(pipe: Any, step: int, _t: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if step == 0:
            pipe._guidance_scale = 1.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[1]
        return tensors

    with reference(pipeline.pipe, Reference(latents=latents(90)), write_every=8):
        pipeline.pipe.unet.conv_in.register_forward_hook(lambda _module, args, _output: rows.append(len(args[0])))
        pipeline(
            num_inference_steps=3, callback_on_step_end=unguided, callback_on_step_end_tensor_inputs=["prompt_embeds"]
        )
    assert rows == [2, 2, 1, 1, 1]


@pytest.mark.parametrize("every", [0, -1])
def test_less_than_one_is_refused(every: int) -> None:
    with (
        pytest.raises(ValueError, match=f"write_every is {every}; expected at least 1"),
        reference(tiny("sd").pipe, picture(1), write_every=every),
    ):
        pass


@every_system_in_time
def test_a_systems_writer_may_run_at_every_kth_step(system: System) -> None:
    pipe = system.make()
    if not system.writes_each_step:
        with pytest.raises(ValueError, match="write_every is for writers that run at every step"):
            system.call(pipe, write_every=2)
        return
    ran: list[int] = []
    pipe.reference_unet.conv_in.register_forward_hook(lambda *_: ran.append(1))
    passes: dict[int, int] = {}
    results: dict[int, torch.Tensor] = {}
    for every in (1, 2):
        ran.clear()
        results[every] = system.call(pipe, num_inference_steps=4, write_every=every, latents=system.noise())
        passes[every] = len(ran)
    assert passes[1] == 2 * passes[2] > 0
    assert relative_error(results[2], results[1]) > 1e-5
