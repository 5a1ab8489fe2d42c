"""StyleAligned against a plain computation from the paper: attention, AdaIN, norms, and a picture's style.

The plain computation shares no code with the library: softmax, statistics, inversion and the loop are spelled out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from plain import PlainLinks, at_sites, attention_names
from referencenet import Style, share
from referencenet.links import Aligned, SharedNorm, attach
from tiny import Tiny, picture, scheduler, tiny
from tolerances import ROUNDING, relative_error

TWO = {"prompt": ["a knight", "a wizard"]}


@dataclass(frozen=True, kw_only=True)
class Plain:
    """StyleAligned as the paper and its code say it.

    Attributes:
        adain_queries: AdaIN(Q, Q_r).
        adain_keys: AdaIN(K, K_r).
        attention: [K_r; K], [V_r; V].
        key_scale: K_r times this.
        weight: exp of the shift of the logits.
        amounts: Per half, how far outputs move from plain.
    """

    adain_queries: bool = True
    adain_keys: bool = True
    attention: bool = True
    key_scale: float = 1.0
    weight: float = 1.0
    amounts: tuple[float, ...] = (1.0, 1.0)

    def attend(self, attn: Any, name: str, tokens: Tensor) -> Tensor:  # noqa: ARG002 - the same at every site
        """Every picture (n, c) of every half by itself."""
        results: list[Tensor] = []
        for amount, half in zip(self.amounts, tokens.chunk(len(self.amounts)), strict=True):
            first = [self.heads(attn, layer(half[0])) for layer in (attn.to_q, attn.to_k, attn.to_v)]
            for number, own in enumerate(half):
                query, key, value = (self.heads(attn, layer(own)) for layer in (attn.to_q, attn.to_k, attn.to_v))
                plain = self.softmax(query, [key], [value], [1.0])
                if number == 0:
                    results.append(plain)
                    continue
                query = self.adain(query, first[0]) if self.adain_queries else query
                key = self.adain(key, first[1]) if self.adain_keys else key
                if self.attention:
                    parts = [self.key_scale * first[1], key], [first[2], value], [self.weight, 1.0]
                    full = self.softmax(query, *parts)
                else:
                    full = self.softmax(query, [key], [value], [1.0])
                results.append((1 - amount) * plain + amount * full)
        return attn.to_out[0](torch.stack(results))

    @staticmethod
    def heads(attn: Any, x: Tensor) -> Tensor:
        return torch.stack(x.chunk(attn.heads, dim=1))  # (heads, n, d)

    @staticmethod
    def adain(x: Tensor, y: Tensor) -> Tensor:
        count = x.shape[1] - 1
        means = [each.sum(dim=1, keepdim=True) / each.shape[1] for each in (x, y)]
        stds = [(((e - m) ** 2).sum(1, keepdim=True) / count + 1e-5) ** 0.5 for e, m in zip((x, y), means, strict=True)]
        return stds[1] * (x - means[0]) / stds[0] + means[1]

    @staticmethod
    def softmax(query: Tensor, keys: list[Tensor], values: list[Tensor], weights: list[float]) -> Tensor:
        scores = [w * (query @ k.mT / query.shape[-1] ** 0.5).exp() for w, k in zip(weights, keys, strict=True)]
        probabilities = torch.cat(scores, dim=2)
        mixed = probabilities / probabilities.sum(dim=2, keepdim=True) @ torch.cat(values, dim=1)
        return torch.cat(list(mixed), dim=1)  # (n, c)


@contextmanager
def plainly(unet: Any, plain: Plain, layers: float = 1.0) -> Generator[None]:
    with at_sites(unet, PlainLinks(attention_names(unet, layers)), plain.attend, None):
        yield


@contextmanager
def norms_with_the_first(unet: Any, halves: int) -> Generator[None]:
    """Every group norm's mean and variance are those of a picture and the first one of its half."""

    def normalised(module: Any, args: Any, output: Tensor) -> Tensor:
        results: list[Tensor] = []
        for half in args[0].chunk(halves):
            for own in half:
                both = torch.stack([own, half[0]]).unflatten(1, (module.num_groups, -1))  # (2, groups, c, h, w)
                mean = both.mean(dim=(0, 2, 3, 4))
                variance = both.square().mean(dim=(0, 2, 3, 4)) - mean.square()
                x = own.unflatten(0, (module.num_groups, -1)) - mean.view(-1, 1, 1, 1)
                x = (x / (variance + module.eps).sqrt().view(-1, 1, 1, 1)).flatten(0, 1)
                results.append(x * module.weight.view(-1, 1, 1) + module.bias.view(-1, 1, 1))
        return torch.stack(results).to(output)

    with ExitStack() as stack:
        for module in unet.modules():
            if isinstance(module, torch.nn.GroupNorm):
                stack.callback(module.register_forward_hook(normalised).remove)
        yield


SWITCHES = [
    {},
    {"adain_queries": False},
    {"adain_keys": False},
    {"attention": False},
    {"adain_queries": False, "adain_keys": False},
    {"weight": 3.0},
    {"key_scale": 0.7},
    {"strength": 0.5},
    {"style_fidelity": 0.5},
    {"style_fidelity": 1.0},
    {"strength": 0.5, "adain_queries": False, "adain_keys": False, "weight": 2.0},
]


@pytest.mark.parametrize("guidance_scale", [7.5, 1.0])
@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: ", ".join(switches) or "as published")
def test_every_part_is_the_papers(switches: dict[str, Any], guidance_scale: float):
    pipeline = tiny("sd")
    arguments = {"num_images_per_prompt": 3, "guidance_scale": guidance_scale}
    strength, fidelity = switches.get("strength", 1.0), switches.get("style_fidelity", 0.0)
    amounts = (strength * (1 - fidelity), strength) if guidance_scale > 1 else (strength,)
    others = {name: value for name, value in switches.items() if name not in ("strength", "style_fidelity")}
    plain = pipeline(**arguments)
    with share(pipeline.pipe, **switches):
        ours = pipeline(**arguments)
    with plainly(pipeline.unet, Plain(amounts=amounts, **others)):
        expected = pipeline(**arguments)
    assert relative_error(ours, expected) < ROUNDING
    assert relative_error(ours[1:], plain[1:]) > 1e-3


@pytest.mark.parametrize("guidance_scale", [7.5, 1.0])
@pytest.mark.parametrize("attention", [True, False])
def test_group_norms_are_shared_if_asked_for(attention: bool, guidance_scale: float):
    pipeline = tiny("sd")
    arguments = {"num_images_per_prompt": 3, "guidance_scale": guidance_scale}
    halves = 2 if guidance_scale > 1 else 1
    switches = {} if attention else {"attention": False, "adain_queries": False, "adain_keys": False}
    with share(pipeline.pipe, group_norm=True, **switches) as link:
        ours = pipeline(**arguments)
        assert "statistics of own and first picture's features together" in repr(link)
    with ExitStack() as stack:
        stack.enter_context(norms_with_the_first(pipeline.unet, halves))
        if attention:
            stack.enter_context(plainly(pipeline.unet, Plain(amounts=(1.0,) * halves)))
        expected = pipeline(**arguments)
    assert relative_error(ours, expected) < ROUNDING


def test_norms_of_a_half_that_does_not_read_are_its_own():
    pipeline = tiny("sd")
    plain = pipeline(**TWO)
    with share(pipeline.pipe, group_norm=True, strength=0.0):
        assert relative_error(pipeline(**TWO), plain) < ROUNDING


def test_layers_choose_sites_as_the_links_weight_does():
    pipeline = tiny("sd")
    with share(pipeline.pipe, layers=0.4) as link:
        ours = pipeline(**TWO)
    with plainly(pipeline.unet, Plain(), layers=0.4):
        expected = pipeline(**TWO)
    assert 0 < len(link.sites) < len(attention_names(pipeline.unet))
    assert relative_error(ours, expected) < ROUNDING


@pytest.mark.parametrize("kind", ["sd", "sdxl", "controlnet"])
def test_the_first_picture_and_single_pictures_stay_as_they_are(kind: str):
    pipeline = tiny(kind)
    plain, single = pipeline(**TWO), pipeline()
    with share(pipeline.pipe, group_norm=True):
        shared = pipeline(**TWO)
        assert relative_error(pipeline(), single) < ROUNDING
    assert relative_error(shared[:1], plain[:1]) < ROUNDING
    assert relative_error(shared[1:], plain[1:]) > 1e-3
    assert torch.equal(pipeline(**TWO), plain)


def test_sharing_with_strength_zero_is_plain():
    pipeline = tiny("sd")
    plain = pipeline(**TWO)
    with share(pipeline.pipe, strength=0.0):
        assert relative_error(pipeline(**TWO), plain) < ROUNDING


def test_films_refer_to_the_first_frame_of_the_first_film():
    pipeline = tiny("animatediff")
    plain = pipeline()
    with share(pipeline.pipe, group_norm=True):
        shared = pipeline()
    assert relative_error(shared[:, :, 1:], plain[:, :, 1:]) > 1e-3


def test_gradients_flow_through_both_attentions():
    pipeline = tiny("sd")
    sample = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    words = torch.zeros(2, 5, 16)
    with attach(pipeline.unet, [Aligned(), SharedNorm()]) as link, link.sharing(halves=1, weights=[1.0]):
        predicted = pipeline.unet(sample, 10, words).sample
        with torch.no_grad():
            assert relative_error(pipeline.unet(sample, 10, words).sample, predicted) < ROUNDING
    (gradient,) = torch.autograd.grad(predicted[1].square().sum(), sample)
    assert (gradient.abs().sum(dim=(1, 2, 3)) > 0).all()


# --- a picture's style ------------------------------------------------------------------------------------------------


def encoded(pipeline: Tiny, seed: int = 1) -> Tensor:
    """The picture's latents: the mean of its posterior, scaled."""
    pixels = torch.from_numpy(np.asarray(picture(seed), dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    return pipeline.pipe.vae.encode(pixels).latent_dist.mean * pipeline.pipe.vae.config.scaling_factor


def by_hand(pipeline: Tiny, prompts: list[str], steps: int, scale: float, inversion: float | None) -> Tensor:
    """A loop of its own: DDIM by its formula, the style's latents in row 0 of each half; `inversion` is its guidance.

    Returns:
        Latents (b, 4, 8, 8); those of the style are where its own last step leads.
    """
    pipe, unet = pipeline.pipe, pipeline.unet
    pipe.scheduler.set_timesteps(steps)
    times = pipe.scheduler.timesteps.tolist()
    shares = [float(pipe.scheduler.alphas_cumprod[t]) for t in times] + [float(pipe.scheduler.final_alpha_cumprod)]
    words, blank = pipe.encode_prompt(prompts, "cpu", 1, True)
    clean, styles = encoded(pipeline), {}
    if inversion is None:
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        styles = {i: a**0.5 * clean + (1 - a) ** 0.5 * noise for i, a in enumerate(shares)}
    else:
        now = clean
        for i in reversed(range(steps)):  # from level i + 1 to the noisier level i
            predicted = [unet(now, times[i], each).sample for each in (blank[:1], words[:1])]
            epsilon = predicted[0] + inversion * (predicted[1] - predicted[0])
            start = (now - (1 - shares[i + 1]) ** 0.5 * epsilon) / shares[i + 1] ** 0.5
            now = styles[i] = shares[i] ** 0.5 * start + (1 - shares[i]) ** 0.5 * epsilon
    x = torch.randn(len(prompts), 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for i in range(steps):
        x = torch.cat([styles[i], x[1:]])
        with plainly(unet, Plain()):
            without, given = unet(torch.cat([x, x]), times[i], torch.cat([blank, words])).sample.chunk(2)
        epsilon = without + scale * (given - without)
        start = (x - (1 - shares[i]) ** 0.5 * epsilon) / shares[i] ** 0.5
        x = shares[i + 1] ** 0.5 * start + (1 - shares[i + 1]) ** 0.5 * epsilon
    return x


@pytest.mark.parametrize(
    ("style", "inversion"),
    [(lambda: picture(1), 2.0), (lambda: Style(picture(1), guidance_scale=1.0), 1.0),
     (lambda: Style(picture(1), how="noised"), None)],
    ids=["inverted", "without guidance", "noised"],
)  # fmt: skip
@torch.no_grad()
def test_a_pictures_latents_stand_in_the_first_place(style: Callable[[], Any], inversion: float | None):
    pipeline = tiny("sd")
    prompts = ["a knight", "a wizard", "a red fox"]
    with share(pipeline.pipe, style()):
        ours = pipeline(prompt=prompts, num_inference_steps=3, guidance_scale=3.0)
        again = pipeline(prompt=prompts, num_inference_steps=3, guidance_scale=3.0)
    assert torch.equal(ours, again)
    assert relative_error(ours, by_hand(pipeline, prompts, 3, 3.0, inversion)) < ROUNDING


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("cls", [EulerDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_inversion_follows_every_scheduler_and_prediction(cls: Any, prediction: str):
    """A UNet that predicts one fixed noise: forwards and backwards the style walks one straight line."""
    pipeline = tiny("sd")
    pipeline.pipe.scheduler = cls.from_config(scheduler(prediction_type=prediction).config)
    clean, noise = encoded(pipeline), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    seen: list[Tensor] = []

    def straight(_module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        sample, time = args[0], args[1] if len(args) > 1 else kwargs["timestep"]
        s = pipeline.pipe.scheduler
        sigma = float(s.sigmas[min(range(len(s.timesteps)), key=lambda i: abs(float(s.timesteps[i]) - float(time)))])
        a, b = (1 + sigma**2) ** -0.5, sigma * (1 + sigma**2) ** -0.5
        if sample.shape[0] == 4:  # the pass of the batch, not one of the inversion
            seen.append(sample[0] - (a * clean[0] + b * noise[0]))
        told = {"epsilon": noise, "v_prediction": (noise - b * sample) / a, "sample": (sample - b * noise) / a}
        result = told[prediction].expand_as(sample)
        return (result,) if isinstance(output, tuple) else type(output)(sample=result)

    with pipeline.unet.register_forward_hook(straight, with_kwargs=True), share(pipeline.pipe, picture(1)):
        made = pipeline(**TWO, num_inference_steps=4, guidance_scale=3.0)
    assert len(seen) >= 4
    assert max(float(each.abs().max()) for each in seen) < 1e-4
    assert relative_error(made[:1], clean) < 1e-3


@pytest.mark.parametrize("kind", ["sdxl", "controlnet", "img2img"])
@pytest.mark.parametrize("cls", [None, HeunDiscreteScheduler])
def test_other_pipelines_take_a_style(kind: str, cls: Any):
    pipeline = tiny(kind)
    if cls is not None:
        pipeline.pipe.scheduler = cls.from_config(scheduler().config)
    two = TWO | ({"image": [picture(10), picture(11)]} if kind == "img2img" else {})
    plain = pipeline(**two)
    for style in (Style(picture(1)), Style(picture(1), how="noised")):
        with share(pipeline.pipe, style):
            made = pipeline(**two)
        assert torch.isfinite(made).all()
        assert relative_error(made[1:], plain[1:]) > 1e-3
    assert torch.equal(pipeline(**two), plain)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_a_style_without_a_place_teaches():
    pipeline = tiny("sd")
    with share(pipeline.pipe, picture(1)), pytest.raises(ValueError, match="give two prompts"):
        pipeline()
    for kind in ("animatediff", "inpaint9"):
        other = tiny(kind)
        with share(other.pipe, picture(1)), pytest.raises(TypeError, match="Leave the style out"):
            other()
    pipeline.pipe.scheduler = KDPM2DiscreteScheduler.from_config(scheduler().config)
    with share(pipeline.pipe, picture(1)), pytest.raises(ValueError, match="KDPM2DiscreteScheduler cannot be run back"):
        pipeline(**TWO)
    with share(pipeline.pipe, Style(picture(1), how="noised")):
        pipeline(**TWO)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: Style(picture(1), how="drawn"), "how is 'drawn'"),  # pyright: ignore[reportArgumentType]
    (lambda: Style(picture(1), guidance_scale=-1.0), "guidance_scale is -1.0"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_styles_teach(make: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"attention": False, "adain_queries": False, "adain_keys": False}, "are all off"),
        ({"key_scale": 0.0}, "key_scale is 0.0"),
        ({"group_norm": True, "strength": 0.5}, "leave group_norm out"),
        ({"group_norm": True, "style_fidelity": 0.5}, "leave group_norm out"),
    ],
)
def test_wrong_switches_teach(switches: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message), share(tiny("sd").pipe, **switches):
        pass


@pytest.mark.parametrize("kind", [Aligned(), SharedNorm()])
def test_links_of_a_batch_read_no_bank(kind: Any):
    pipeline = tiny("sd")
    with pytest.raises(TypeError, match="no bank"):
        kind.read([], None)
    with torch.no_grad(), attach(pipeline.unet, [SharedNorm()]) as link, pytest.raises(TypeError, match="no bank"):
        link.write(torch.zeros(1, 4, 8, 8), 0, encoder_hidden_states=torch.zeros(1, 5, 16))
