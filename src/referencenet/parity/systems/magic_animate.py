"""MagicAnimate's golden cases: its networks, one step, films, windows and inversion."""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from referencenet.methods.magic_animate import MagicAnimatePipeline
from referencenet.networks.layout import SD15_UNET
from referencenet.networks.stable_diffusion import HINT_WIDTHS
from referencenet.parity import kinds
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.kinds import Outputs
from referencenet.parity.record import Runner, each_output
from referencenet.parity.system import Network, System, motion_settings, scheduler_of
from referencenet.pipelines.passes import Pass
from referencenet.pipelines.spec import Shown
from referencenet.sampling.windows import published_windows

BLOCK_TYPES = {key: SD15_UNET[key] for key in ("down_block_types", "up_block_types")}


def sd15(_case: Case, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with Stable Diffusion's kinds of blocks, which the cases leave out."""
    return {**config, **BLOCK_TYPES}


def film(case: Case, config: Mapping[str, Any]) -> dict[str, Any]:
    """The denoiser's, whose motion modules must be as released."""
    settings = motion_settings(case, config.get("motion_module_kwargs", {}))
    if settings != {"motion_heads": 8, "num_positions": 24} or not config.get("use_motion_module"):
        raise CaseError(f"{case.id}: the denoiser has motion modules of 8 heads and 24 positions; got {settings}")
    if config.get("motion_module_mid_block"):
        raise CaseError(f"{case.id}: the denoiser has no motion module in the middle; motion_module_mid_block is on")
    return sd15(case, config)


def hints(case: Case, config: Mapping[str, Any]) -> dict[str, Any]:
    """The ControlNet's."""
    widths = tuple(config.get("conditioning_embedding_out_channels", HINT_WIDTHS))
    if widths != HINT_WIDTHS:
        raise CaseError(f"{case.id}: the condition's embedding is {widths}; expected {HINT_WIDTHS}, as released")
    return sd15(case, {key: value for key, value in config.items() if not key.startswith("conditioning_embedding")})


SYSTEM = System(
    MagicAnimatePipeline,
    {
        "unet": Network("unet", film),
        "reference_unet": Network("appearance_encoder", sd15),
        "controlnet": Network("controlnet", hints),
    },
)


def controlnet(case: Case) -> Outputs:
    """The ControlNet on frames, its embedding, and once more at timestep 1 with 0.7 of its residuals."""
    network, frames, outputs = SYSTEM.network(case, "controlnet"), case.input("sample"), Outputs()
    told = case.input("text").expand(len(frames), -1, -1), case.input("cond")
    with each_output(network, {"controlnet_cond_embedding": "cond_embedding"}, outputs):
        for prefix, t, scale in (("", case.scalar("timestep"), case.scalar("conditioning_scale")), ("scaled.", 1, 0.7)):
            names = f"{prefix}down.{{}}", f"{prefix}mid"
            outputs |= kinds.controlled(network, *names, frames, t, *told, conditioning_scale=scale)
    return outputs


def step(case: Case) -> Outputs:
    """One step: plain, with the ControlNet, reading in all rows, and guided; and what layers give."""
    pipe, text, t = SYSTEM.pipe(case), case.input("text"), case.scalar("timestep")
    told = Shown(latents=case.input("ref"), context=text[1:])
    both = Shown(latents=told.latents.expand(2, -1, -1, -1), context=text)  # the published one writes both rows
    given = {"prompt": (text[1:], text[:1]), "poses": kinds.drawn(case.input("cond")), "poses_scale": 1.0}
    predict = partial(kinds.predict, pipe, case.input("latents"), t, given=given)

    def two(reads: Any, own: Any, *blind: str) -> kinds.Passes:
        first = Pass(factor=0.0, reads=reads, blind=frozenset({"prompt", *blind}))
        return kinds.Passes(first, Pass(factor=1.0, reads=own, blind=frozenset(blind)))

    def watched(way: str) -> dict[str, str]:
        return {name.removeprefix(way): name for name in case.expected if name.startswith(way)}

    outputs = predict(told, raw="plain", guidance=two(None, None, "poses"), watched=watched("plain."))
    outputs |= predict(told, raw="control", guidance=two(None, None))
    outputs |= predict(both, raw="read_all", guidance=two("blank", "reference", "poses"))
    outputs |= predict(told, raw="read_cfg", scale=case.scalar("guidance_scale"), watched=watched("read_cfg."))
    return outputs | kinds.banked(pipe, both, t, "bank.{place}")


def sample(case: Case) -> Outputs:
    """Films with the published windows: one per `run_...` of the case."""
    pipe, outputs = SYSTEM.pipe(case, scheduler=scheduler_of(case)), Outputs()
    for name in sorted(name for name in case.content if name.startswith("run_")):
        suffix = name.removeprefix("run_")
        prefix, ending = ("", "") if suffix == "a" else (f"{suffix}.", f"_{suffix}")
        outputs |= {f"{prefix}{key}": value for key, value in sampled(case, pipe, case.content[name], ending).items()}
    return outputs


def sampled(case: Case, pipe: Any, run: Mapping[str, Any], ending: str) -> Outputs:
    """One film: the guided noise of the first step, and latents behind steps and at the end."""
    text, windows = case.input("text"), kinds.film_windows(case, run, pipe.spec)
    noise = case.input(f"noise{ending}" if f"noise{ending}" in case.inputs else "latents")
    latents = noise.repeat(1, 1, -(-run["frames"] // noise.shape[2]), 1, 1)[:, :, : run["frames"]]
    drawings = torch.floor(256 * case.input(f"cond{ending}")).clamp(max=255) / 255
    shown = Shown(latents=case.input(f"ref{ending}"), context=text[1:])
    given = {"prompt": (text[1:], text[:1]), "poses_scale": run["controlnet_conditioning_scale"]}

    def call(**options: Any) -> None:
        pipe.film(shown, "poses", drawings, options, **given)

    names = {"final": "latents", "steps": "steps"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a case's drawings are noise
        kept = kinds.sample(case, pipe, call, "latents.step{}", latents=latents, numbers=run, windows=windows, **names)
    timesteps = pipe.scheduler.timesteps.tolist()
    if timesteps != run["timesteps"]:
        raise ValueError(f"the timesteps are {timesteps}, expected {run['timesteps']}.")
    return kept | {"guided.step0": noise_of(pipe.scheduler, timesteps[0], latents, kept["latents.step0"])}


def noise_of(scheduler: Any, t: int, before: Tensor, after: Tensor) -> Tensor:
    """The noise that took latents (b, c, f, h, w) one DDIM step further."""
    previous = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    a = scheduler.alphas_cumprod[t].double()
    last = scheduler.final_alpha_cumprod if previous < 0 else scheduler.alphas_cumprod[previous]
    ratio = last.double().sqrt() / a.sqrt()
    slope = (1 - last.double()).sqrt() - ratio * (1 - a).sqrt()
    return ((after.double() - ratio * before.double()) / slope).float()


def windows(case: Case) -> Outputs:
    """The published windows, which must be those of the case, and how many hold each frame, be it once or twice."""
    outputs: Outputs = {}
    for query in case.content["windows"]:
        frames, size, stride, overlap = numbers = [query[name] for name in ("frames", "size", "stride", "overlap")]
        found = published_windows(frames, size, stride=stride, overlap=overlap)
        if found != query["windows"]:
            raise ValueError(f"the windows of {query} are {found} here.")
        flat = torch.tensor([frame for window in found for frame in {*window}])
        outputs[f"count.{'.'.join(map(str, numbers))}"] = torch.bincount(flat, minlength=frames)
    return outputs


def inversion(case: Case) -> Outputs:
    """DDIM's inversion of clean latents."""
    pipe = SYSTEM.pipe(case, "unet", scheduler=scheduler_of(case))
    steps = pipe.inverting(case.input("latents"), case.input("text")[1:], case.scalar("steps"))
    return {f"latents.{i}": latents for i, latents in enumerate(steps, start=1)}


RUNNERS: Mapping[str, Runner] = {
    "appearance": kinds.writes(SYSTEM, kinds.Shows("ref", "text"), "bank.{block}"),
    "controlnet": kinds.runner(controlnet),
    "motion": kinds.motion("x", "out", {"norm": "norm", "attn1": "attn0", "attn2": "attn1"}, table="pe"),
    "step": kinds.runner(step),
    "sample": kinds.runner(sample),
    "windows": kinds.runner(windows),
    "inversion": kinds.runner(inversion),
}
