"""Runs the golden cases of MagicAnimate: its networks, one step, films, windows and inversion.

All networks are built by the functions that published files are read with, and filled through the same key maps.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from referencenet.links.attach import attach, write
from referencenet.methods.magic_animate import PUBLISHED, SPEC, MagicAnimatePipeline
from referencenet.networks.layout import SD15_UNET
from referencenet.networks.motion import SpatioTemporalUNet
from referencenet.networks.stable_diffusion import HINT_WIDTHS
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.record import (
    Produced,
    Runner,
    assemble,
    build_motion_module,
    by_frame,
    component_config,
    each_output,
    fold,
    unfold,
)
from referencenet.pipelines.passes import reading_plan
from referencenet.pipelines.spec import Shown
from referencenet.sampling.windows import Windows, published_windows

SITE = ".transformer_blocks.0.attn1"

# --- the kinds --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def run_appearance(case: Case) -> Produced:
    """The appearance encoder's bank."""
    bank = write_bank(case, case.input("ref"), case.input("text"))
    return Produced({f"bank.{site.removesuffix('.attn1')}": tokens for site, tokens in bank.hidden.items()}, {})


@torch.no_grad()
def run_controlnet(case: Case) -> Produced:
    """The ControlNet on frames, its embedding, and once more at timestep 1 with 0.7 of its residuals."""
    network = build_controlnet(case)
    frames, pictures = case.input("sample"), case.input("cond")
    text = case.input("text").expand(len(frames), -1, -1)
    outputs: dict[str, Tensor] = {}
    with each_output(network, {"controlnet_cond_embedding": "cond_embedding"}, outputs):
        for prefix, t, scale in (("", case.scalar("timestep"), case.scalar("conditioning_scale")), ("scaled.", 1, 0.7)):
            down, middle = network(frames, t, text, pictures, conditioning_scale=scale, return_dict=False)
            outputs |= {f"{prefix}down.{i}": level for i, level in enumerate(down)} | {f"{prefix}mid": middle}
    return Produced(outputs, {})


@torch.no_grad()
def run_motion(case: Case) -> Produced:
    """One motion module on (b, c, f, h, w), with what its layers give."""
    config = component_config(case, "motion_module")
    module = build_motion_module(
        case, heads=config["num_attention_heads"], positions=config["temporal_position_encoding_max_len"]
    )
    hidden = case.input("x")
    batch, _, frames, height, width = hidden.shape
    first, kept = "transformer_blocks.0", {}
    with each_output(module, {"norm": "norm", f"{first}.attn1": "attn0", f"{first}.attn2": "attn1"}, kept):
        output = module(fold(hidden), num_frames=frames)
    outputs = {name: fold(value) if name == "norm" else by_frame(value, batch, height * width)
               for name, value in kept.items()}  # fmt: skip
    table: Any = module.get_submodule(first).pos_embed
    return Produced(outputs | {"out": unfold(output, frames), "pe": table.pe}, {})


@torch.no_grad()
def run_step(case: Case) -> Produced:
    """One step: plain, with the ControlNet, reading in all rows, and guided; and what layers give."""
    unet, controlnet = build_unet(case), build_controlnet(case)
    latents, text, t = case.input("latents"), case.input("text"), case.scalar("timestep")
    frames, scale = latents.shape[2], case.scalar("guidance_scale")
    both = torch.cat([latents, latents])
    seen = text[1:].expand(frames, -1, -1)
    down, middle = controlnet(fold(latents), t, seen, case.input("cond"), return_dict=False)
    residuals = {
        "down_block_additional_residuals": [torch.cat([level, level]) for level in down],
        "mid_block_additional_residual": torch.cat([middle, middle]),
    }
    bank = write_bank(case, case.input("ref").expand(2, -1, -1, -1), text)
    outputs: dict[str, Tensor] = {}
    inner = {name.removeprefix("plain."): name for name in case.expected if name.startswith("plain.")}
    with each_output(unet, inner, outputs):
        outputs["plain"] = unet(both, t, text).sample
    outputs |= {name: unfold(outputs[name], frames) for name in inner.values()}
    outputs["control"] = unet(both, t, text, **residuals).sample
    plan = reading_plan(SPEC.guidance.passes(t, scale), 1, 1)
    inner = {name.removeprefix("read_cfg."): name for name in case.expected if name.startswith("read_cfg.")}
    with attach(unet, [SPEC.link]) as link:
        with link.reading(bank):
            outputs["read_all"] = unet(both, t, text).sample
        with link.reading(bank.map(lambda tokens: tokens[1:]), plan=plan), each_output(unet, inner, outputs):
            outputs["read_cfg"] = unet(both, t, text, **residuals).sample
    blind, seeing = outputs["read_cfg"].chunk(2)
    outputs["guided"] = SPEC.guidance.combine(SPEC.guidance.passes(t, scale), [blind, seeing])
    outputs |= {name: bank.hidden[name.removeprefix("bank.") + SITE] for name in case.expected if "bank." in name}
    return Produced(outputs, {})


@torch.no_grad()
def run_sample(case: Case) -> Produced:
    """Films through the pipeline's body, with the published windows: one per `run_...` of the case."""
    pipe = assemble(
        MagicAnimatePipeline,
        unet=build_unet(case),
        reference_unet=build_reference(case),
        controlnet=build_controlnet(case),
        scheduler=build_scheduler(case),
        fusion_blocks="midup",
    )
    outputs: dict[str, Tensor] = {}
    runs = sorted(name for name in case.content if name.startswith("run_"))
    for name in runs:
        suffix = name.removeprefix("run_")
        prefix, ending = ("", "") if suffix == "a" else (f"{suffix}.", f"_{suffix}")
        outputs |= {f"{prefix}{key}": value for key, value in film(case, pipe, case.content[name], ending).items()}
    return Produced(outputs, {})


def run_windows(case: Case) -> Produced:
    """The published windows, which must be those of the case, and how many hold each frame, be it once or twice."""
    outputs: dict[str, Tensor] = {}
    for query in case.content["windows"]:
        numbers = [query[name] for name in ("frames", "size", "stride", "overlap")]
        frames, size, stride, overlap = numbers
        windows = published_windows(frames, size, stride=stride, overlap=overlap)
        if windows != query["windows"]:
            raise ValueError(f"the windows of {query} are {windows} here.")
        flat = torch.tensor([frame for window in windows for frame in {*window}])
        outputs[f"count.{'.'.join(map(str, numbers))}"] = torch.bincount(flat, minlength=frames).float()
    return Produced(outputs, {})


@torch.no_grad()
def run_inversion(case: Case) -> Produced:
    """DDIM's inversion of clean latents."""
    pipe = assemble(MagicAnimatePipeline, unet=build_unet(case), scheduler=build_scheduler(case), fusion_blocks="midup")
    steps = pipe.inverting(case.input("latents"), case.input("text")[1:], case.scalar("steps"))
    return Produced({f"latents.{i}": latents for i, latents in enumerate(steps, start=1)}, {})


# --- films ------------------------------------------------------------------------------------------------------------


def film(case: Case, pipe: MagicAnimatePipeline, run: Mapping[str, Any], ending: str) -> dict[str, Tensor]:
    """One film: the guided noise of the first step, and latents behind steps and at the end."""
    text, frames = case.input("text"), run["frames"]
    noise = case.input("latents") if f"noise{ending}" not in case.inputs else case.input(f"noise{ending}")
    latents = noise.repeat(1, 1, -(-frames // noise.shape[2]), 1, 1)[:, :, :frames]
    drawings = (torch.floor(256 * case.input(f"cond{ending}")).clamp(max=255)) / 255
    kept: dict[str, Tensor] = {}

    def keep(_pipe: Any, step: int, t: Tensor, tensors: dict[str, Tensor]) -> None:
        if step == 0:
            kept["guided.step0"] = noise_of(pipe.scheduler, int(t), latents, tensors["latents"])
        kept[f"latents.step{step}"] = kept["latents"] = tensors["latents"]

    options: dict[str, Any] = {
        "num_inference_steps": run["steps"],
        "guidance_scale": run["guidance_scale"],
        "latents": latents,
        "output_type": "latent",
        "callback_on_step_end": keep,
        "width": drawings.shape[-1],
        "height": drawings.shape[-2],
        "windows": Windows(size=run["context_frames"], overlap=run["context_overlap"],
                           stride=run["context_stride"], published=True),
    }  # fmt: skip
    shown = Shown(latents=case.input(f"ref{ending}"), context=text[1:])
    scale = run["controlnet_conditioning_scale"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a case's drawings are noise
        pipe.film(shown, "poses", drawings, options, prompt=(text[1:], text[:1]), poses_scale=scale)
    if [int(t) for t in pipe.scheduler.timesteps] != run["timesteps"]:
        raise ValueError(f"the timesteps are {pipe.scheduler.timesteps.tolist()}, expected {run['timesteps']}.")
    return kept


def noise_of(scheduler: Any, t: int, before: Tensor, after: Tensor) -> Tensor:
    """The noise that took latents (b, c, f, h, w) one DDIM step further."""
    previous = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    a = scheduler.alphas_cumprod[t].double()
    last = scheduler.final_alpha_cumprod if previous < 0 else scheduler.alphas_cumprod[previous]
    ratio = last.double().sqrt() / a.sqrt()
    slope = (1 - last.double()).sqrt() - ratio * (1 - a).sqrt()
    return ((after.double() - ratio * before.double()) / slope).float()


# --- networks ---------------------------------------------------------------------------------------------------------


def sd15(case: Case, name: str) -> dict[str, Any]:
    """A component's configuration with Stable Diffusion's kinds of blocks."""
    config = dict(component_config(case, name))
    return {**config, **{key: SD15_UNET[key] for key in ("down_block_types", "up_block_types")}}


def build_unet(case: Case) -> SpatioTemporalUNet:
    """The denoiser with its weights."""
    config = sd15(case, "unet")
    kwargs = config.get("motion_module_kwargs", {})
    published = {"num_attention_heads": 8, "temporal_position_encoding_max_len": 24, "temporal_attention_dim_div": 1}
    other = {name: kwargs.get(name) for name, value in published.items() if kwargs.get(name) != value}
    if other or not config.get("use_motion_module") or config.get("motion_module_mid_block"):
        raise CaseError(f"{case.id}: the denoiser has motion modules as released, none in the middle; got {other}")
    return loaded(case, PUBLISHED.build["unet"](config), "unet")


def build_reference(case: Case) -> nn.Module:
    """The appearance encoder with its weights."""
    return loaded(case, PUBLISHED.build["reference_unet"](sd15(case, "appearance_encoder")), "appearance_encoder")


def build_controlnet(case: Case) -> ControlNetModel:
    """The ControlNet with its weights."""
    config = sd15(case, "controlnet")
    widths = tuple(config.pop("conditioning_embedding_out_channels", HINT_WIDTHS))
    if widths != HINT_WIDTHS:
        raise CaseError(f"{case.id}: the condition's embedding is {widths}; expected {HINT_WIDTHS}, as released.")
    return loaded(case, PUBLISHED.build["controlnet"](config), "controlnet")


def loaded(case: Case, network: Any, name: str) -> Any:
    """A network with its weights, through the key map of its published file."""
    component = "reference_unet" if name == "appearance_encoder" else name
    case.load(network.eval(), name, PUBLISHED.files_of(component)[0].keymap)
    return network


def build_scheduler(case: Case) -> Any:
    """The case's scheduler."""
    config = {name: value for name, value in case.content["scheduler"].items() if name not in ("class", "eta")}
    return getattr(diffusers, case.content["scheduler"]["class"])(**config)


def write_bank(case: Case, reference: Tensor, text: Tensor) -> Any:
    """The appearance encoder's bank at the case's timestep."""
    unet = build_reference(case)
    return write(unet, reference, timestep=case.scalar("timestep"), encoder_hidden_states=text, links=[SPEC.link])


RUNNERS: Mapping[str, Runner] = {
    "appearance": run_appearance,
    "controlnet": run_controlnet,
    "motion": run_motion,
    "step": run_step,
    "sample": run_sample,
    "windows": run_windows,
    "inversion": run_inversion,
}
