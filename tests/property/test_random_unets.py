"""What must hold on any UNet: properties over random small configurations of diffusers' UNet2DConditionModel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from referencenet import AdaIN, Concat, Reference, attach, reference
from tiny import CONTEXT, Tiny, build, latents, tiny
from tolerances import FINITE_DIFFERENCES, ROUNDING, relative_error
from traces import pipeline_traces

quick = settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a UNet of one to three levels with at least one spatial transformer."""
    levels = draw(st.integers(1, 3))
    crossing = draw(st.lists(st.booleans(), min_size=levels, max_size=levels))
    mid = draw(st.sampled_from(["UNetMidBlock2DCrossAttn", "UNetMidBlock2D"]))
    assume(any(crossing) or mid == "UNetMidBlock2DCrossAttn")
    widths = [draw(st.sampled_from([4, 8, 12])) for _ in range(levels)]
    return {
        "sample_size": 8,
        "block_out_channels": tuple(widths),
        "layers_per_block": draw(st.integers(1, 2)),
        "down_block_types": tuple("CrossAttnDownBlock2D" if x else "DownBlock2D" for x in crossing),
        "mid_block_type": mid,
        "up_block_types": tuple("CrossAttnUpBlock2D" if x else "UpBlock2D" for x in reversed(crossing)),
        "attention_head_dim": draw(st.sampled_from([1, 2, 4])),
        "transformer_layers_per_block": draw(st.integers(1, 2)),
        "use_linear_projection": draw(st.booleans()),
        "upcast_attention": draw(st.booleans()),
        "resnet_time_scale_shift": draw(st.sampled_from(["default", "scale_shift"])),
        "cross_attention_dim": CONTEXT,
        "norm_num_groups": draw(st.sampled_from([1, 2, 4])),
    }


@st.composite
def link_lists(draw: st.DrawFn) -> list[Concat | AdaIN]:
    """One link or both, each of any weight that chooses something."""
    weight = st.sampled_from([0.3, 0.7, 1.0])
    links: list[Concat | AdaIN] = []
    if draw(st.booleans()):
        links.append(Concat(weight=draw(weight)))
    if not links or draw(st.booleans()):
        links.append(AdaIN(weight=draw(weight)))
    return links


sizes = st.tuples(st.sampled_from([2, 3, 5]), st.sampled_from([4, 6, 7])).map(lambda s: (4 * s[0], 4 * s[1]))


def make_unet(configuration: dict[str, Any]) -> UNet2DConditionModel:
    return build(lambda: UNet2DConditionModel(**configuration), 1)  # pyright: ignore[reportReturnType]


def pipeline_of(configuration: dict[str, Any]) -> Tiny:
    pipeline = tiny("sd")
    pipeline.pipe.register_modules(unet=make_unet(configuration))
    return pipeline


@given(configurations(), link_lists(), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([1.0, 4.0]), sizes)
@quick
def test_off_order_batch_and_detachment(
    configuration: dict[str, Any],
    links: list[Concat | AdaIN],
    style_fidelity: float,
    guidance_scale: float,
    size: tuple[int, int],
):
    pipeline = pipeline_of(configuration)
    start = latents(3, 2, 4, *size)
    prompts = ["a knight", "a tall wizard"]
    call = {"num_inference_steps": 2, "guidance_scale": guidance_scale}
    both = call | {"prompt": prompts, "latents": start, "height": 8 * size[0], "width": 8 * size[1]}
    options: dict[str, Any] = {"links": links, "style_fidelity": style_fidelity}
    heroes = [Reference(latents=latents(4, 1, 4, 8, 8)), Reference(latents=latents(5, 1, 4, 8, 8), weight=2.0)]
    plain = pipeline(**both)
    before = pipeline_traces(pipeline.pipe)

    with reference(pipeline.pipe, Reference(latents=latents(4), strength=0.0), **options):
        assert torch.equal(pipeline(**both), plain), "strength 0 is not plain"
    noise = [latents(6 + step) for step in range(2)]
    with reference(pipeline.pipe, heroes, noise=noise, **options):
        linked = pipeline(**both)
        singles = [pipeline(**(both | {"prompt": prompts[row], "latents": start[row : row + 1]})) for row in range(2)]
    with reference(pipeline.pipe, heroes[::-1], noise=noise, **options):
        reversed_order = pipeline(**both)
    assert relative_error(linked, plain) > 1e-6, "the references are not read"
    assert relative_error(torch.cat(singles), linked) < ROUNDING, "batch is not a loop of singles"
    assert relative_error(reversed_order, linked) < ROUNDING, "the order of the references matters"
    assert pipeline_traces(pipeline.pipe) == before
    assert torch.equal(pipeline(**both), plain), "detaching does not restore"


@pytest.mark.slow
@given(configurations(), link_lists(), st.sampled_from([[1.0, 1.0], [0.5, 1.0], [0.0, 1.0]]))
@settings(quick, max_examples=3)
def test_compiled_is_eager_and_compiled_once(
    configuration: dict[str, Any], links: list[Concat | AdaIN], weights: list[float]
):
    check_compiled(configuration, links, weights, "eager")


@pytest.mark.slow
@given(configurations(), link_lists(), st.sampled_from([[1.0, 1.0], [0.5, 1.0], [0.0, 1.0]]))
@settings(quick, max_examples=3)
def test_compiled_by_inductor_is_eager(
    configuration: dict[str, Any], links: list[Concat | AdaIN], weights: list[float]
):
    check_compiled(configuration, links, weights, "inductor")


@torch.no_grad()
def check_compiled(
    configuration: dict[str, Any], links: list[Concat | AdaIN], weights: list[float], backend: str
) -> None:
    """The read pass in one graph, the same numbers, and nothing compiled again at later steps."""
    unet = make_unet(configuration)
    context = latents(7, 2, 3, CONTEXT)
    torch._dynamo.reset()
    compiled = torch.compile(unet, backend=backend, fullgraph=True)
    with attach(unet, links) as link:
        for step in range(3):
            timestep = torch.tensor(900 - step)
            bank = link.write(latents(20 + step, 1, 4, 8, 8), timestep, encoder_hidden_states=context[:1])
            x = latents(30 + step, 2, 4, 8, 8)
            with torch._dynamo.config.patch(error_on_recompile=step > 0), link.reading(bank, weights=weights):
                ours = compiled(x, timestep, context, return_dict=False)[0]
                expected = unet(x, timestep, context, return_dict=False)[0]
            assert relative_error(ours, expected) < ROUNDING
    torch._dynamo.reset()


@given(configurations(), link_lists(), st.sampled_from([[1.0, 1.0], [0.5, 1.0], [0.0, 1.0]]), st.booleans())
@settings(quick, max_examples=8)
def test_gradients_agree_with_finite_differences(
    configuration: dict[str, Any], links: list[Concat | AdaIN], weights: list[float], projected: bool
):
    """Along one random direction of the reference's latents, the result's latents and all weights at once."""
    unet = make_unet(configuration).double()
    parameters = [parameter.requires_grad_() for parameter in unet.parameters()]
    context = latents(7, 2, 3, CONTEXT).double()
    inputs = [latents(8).double().requires_grad_(), latents(9, 2, 4, 8, 8).double().requires_grad_(), *parameters]
    directions = [latents(10 + index, *tensor.shape).double() for index, tensor in enumerate(inputs)]
    target = latents(40, 2, 4, 8, 8).double()

    def loss() -> torch.Tensor:
        with attach(unet, links) as link:
            bank = link.write(inputs[0], 10, encoder_hidden_states=context[:1], projected=projected)
            with link.reading(bank, weights=weights):
                return (unet(inputs[1], 10, context).sample * target).sum()

    gradients = torch.autograd.grad(loss(), inputs, allow_unused=True)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
    step = 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for tensor, direction in zip(inputs, directions, strict=True):
                tensor += sign * step * direction
            values.append(loss())
            for tensor, direction in zip(inputs, directions, strict=True):
                tensor -= sign * step * direction
    measured = (values[0] - values[1]) / (2 * step)
    assert abs(float(slope) - float(measured)) <= FINITE_DIFFERENCES * max(1.0, abs(float(measured)))
