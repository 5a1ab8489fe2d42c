"""Runs the golden cases of StableGarment: its garment encoder and ControlNet, one step, both pipelines.

Networks are built and filled by the rows that published files are read with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import diffusers
import torch
from torch import Tensor

from referencenet.checkpoints.keymap import KeyMap
from referencenet.links.attach import attach, write
from referencenet.methods.stable_garment import (
    LINKS,
    PUBLISHED_TRYON,
    SPEC,
    StableGarmentPipeline,
    StableGarmentTryOnPipeline,
)
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.record import Produced, Runner, assemble, component_config, each_output
from referencenet.pipelines.passes import Pass, reading_plan
from referencenet.pipelines.spec import Shown

COMPONENTS = {"unet": "unet", "garment_encoder": "reference_unet", "controlnet": "controlnet"}
STEP = re.compile(r"(midup|full)(_cfg)?(?:_fidelity(\d+))?(?:_repeat(\d+))?")
BLOCK = ".transformer_blocks.0"


@torch.no_grad()
def run_write(case: Case) -> Produced:
    """What the garment encoder writes."""
    bank = write(
        build(case, "garment_encoder"),
        case.input("garment_latents"),
        timestep=case.scalar("timestep"),
        encoder_hidden_states=case.input("garment_text_embeds"),
        links=[LINKS["full"]],
    )
    return Produced(
        cut(case, {f"bank/{site.removesuffix(f'{BLOCK}.attn1')}": x for site, x in bank.hidden.items()}), {}
    )


@torch.no_grad()
def run_controlnet(case: Case) -> Produced:
    """The guider's two terms, the ControlNet's residuals, plainly and in guess mode."""
    network, guider, outputs = build(case, "controlnet"), build_guider(case), dict[str, Tensor]()
    names = {"controlnet_cond_embedding": "cond_embedding", "conv_in_extra": "conv_in_extra"}
    with each_output(guider, names, outputs):
        features = guider(condition(case), case.input("agnostic_latents"))
    for prefix in ("", "guess_"):
        down, middle = network(
            case.input("latents"),
            case.scalar("timestep"),
            encoder_hidden_states=case.input("prompt_embeds"),
            controlnet_cond=features,
            conditioning_scale=case.scalar("conditioning_scale"),
            guess_mode=bool(prefix),
            return_dict=False,
        )
        outputs |= {f"{prefix}down_{i}": level for i, level in enumerate(down)} | {f"{prefix}mid": middle}
    return Produced(cut(case, outputs), {})


@torch.no_grad()
def run_read(case: Case) -> Produced:
    """One pass of the denoiser in each of the ways that the case names."""
    unet, encoder, t = build(case, "unet"), build(case, "garment_encoder"), case.scalar("timestep")
    latents, text, negative = (case.input(name) for name in ("latents", "prompt_embeds", "negative_prompt_embeds"))
    outputs = {"plain/noise_pred": unet(latents, t, text).sample}
    for way in sorted({name.split("/")[0] for name in case.expected} - {"plain"}):
        match = STEP.fullmatch(way)
        if match is None:
            raise CaseError(f"{case.id}: {way!r} names no way to read; expected such as midup_cfg_fidelity06")
        blocks, is_guided, fidelity, repeat = match.groups()
        garments = len(latents) // int(repeat or 1)
        told = (case.input("garment_latents")[:garments], case.input("garment_text_embeds")[:garments])
        bank = write(encoder, told[0], timestep=t, encoder_hidden_states=told[1], links=[LINKS[blocks]])
        link = replace(LINKS[blocks], fidelity=float(f"{fidelity[0]}.{fidelity[1:]}") if fidelity else 1.0)
        passes = SPEC.guidance.passes(t, 2.0) if is_guided else [Pass(factor=1.0)]
        rows = torch.cat([latents] * len(passes)), torch.cat([negative, text] if is_guided else [text])
        places = [name.removeprefix(f"{way}/block/") for name in case.expected if name.startswith(f"{way}/block/")]
        names = {f"{place}{BLOCK}": f"{way}/block/{place}" for place in places}
        plan = reading_plan(passes, len(latents), bank.rows)
        with attach(unet, [link]) as linked, linked.reading(bank, plan=plan), each_output(unet, names, outputs):
            predicted = outputs[f"{way}/noise_pred"] = unet(rows[0], t, rows[1]).sample
        if f"{way}/guided" in case.expected:
            passes = SPEC.guidance.passes(t, case.scalar("guidance_scale_of_guided"))
            outputs[f"{way}/guided"] = SPEC.guidance.combine(passes, predicted.chunk(2))
    return Produced(cut(case, outputs), {})


@torch.no_grad()
def run_text_to_image(case: Case) -> Produced:
    """Pictures through the pipeline's call."""
    pipe = pipeline(case, StableGarmentPipeline)
    return Produced(
        sample(case, pipe, garment=shown(case), guidance_rescale=case.scalars.get("guidance_rescale", 0.0)), {}
    )


@torch.no_grad()
def run_tryon(case: Case) -> Produced:
    """Pictures through the try-on pipeline's call."""
    pipe = pipeline(case, StableGarmentTryOnPipeline, controlnet=build(case, "controlnet"), guider=build_guider(case))
    names = ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end", "guess_mode")
    outputs = sample(
        case,
        pipe,
        person=None,
        agnostic_latents=case.input("agnostic_latents"),
        garment=shown(case),
        mask=1 - keep_mask(case),
        densepose=case.input("densepose"),
        **{name: case.scalars[name] for name in names if name in case.scalars},
    )
    return Produced(outputs, {})


def sample(case: Case, pipe: Any, **given: Any) -> dict[str, Tensor]:
    """The latents behind every step of a call, and its timesteps."""
    kept: dict[str, Tensor] = {}

    def keep(_pipe: Any, step: int, _t: Any, tensors: dict[str, Tensor]) -> None:
        kept[f"latents_{step}"] = tensors["latents"]

    pipe(
        **given,
        prompt_embeds=case.input("prompt_embeds"),
        negative_prompt_embeds=case.input("negative_prompt_embeds"),
        latents=case.input("latents"),
        width=case.scalar("width"),
        height=case.scalar("height"),
        num_inference_steps=case.scalar("num_inference_steps"),
        num_images_per_prompt=case.scalars.get("num_images_per_prompt", 1),
        guidance_scale=case.scalar("guidance_scale"),
        style_fidelity=case.scalars.get("style_fidelity", 1.0),
        eta=case.scalars.get("eta", 0.0),
        output_type="latent",
        callback_on_step_end=keep,
    )
    return {**kept, "timesteps": pipe.scheduler.timesteps.float()}


def pipeline(case: Case, kind: type[Any], **parts: Any) -> Any:
    """A pipeline with the case's networks and scheduler."""
    config = dict(case.scalar("scheduler"))
    scheduler = getattr(diffusers, config.pop("class"))(**config)
    networks = {COMPONENTS[name]: build(case, name) for name in ("unet", "garment_encoder")}
    pipe = assemble(kind, **networks, **parts, scheduler=scheduler, fusion_blocks=case.scalar("fusion_blocks"))
    pipe.vae_scale_factor = 8
    return pipe


def build(case: Case, name: str) -> Any:
    """A network with its weights, by the row of its published file."""
    component = COMPONENTS[name]
    network = PUBLISHED_TRYON.build[component](component_config(case, name)).eval()
    files = PUBLISHED_TRYON.files_of(component)
    case.load(network, name, files[0].keymap if files else KeyMap())
    return network


def build_guider(case: Case) -> Any:
    """The guider, which the published ControlNet holds."""
    guider = PUBLISHED_TRYON.build["guider"](component_config(case, "controlnet")).eval()
    case.load(guider, "controlnet", PUBLISHED_TRYON.files_of("guider")[0].keymap)
    return guider


def shown(case: Case) -> Shown:
    """What the garment encoder is shown."""
    return Shown(latents=case.input("garment_latents"), context=case.input("garment_text_embeds"))


def keep_mask(case: Case) -> Tensor:
    """1 = keep, (r, 1, H, W)."""
    return (case.input("keep_mask") >= 0.5).float()


def condition(case: Case) -> Tensor:
    """Keep mask and DensePose, (r, 4, H, W)."""
    return torch.cat([keep_mask(case), case.input("densepose")], dim=1)


def cut(case: Case, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs that the case has, with as many samples: of large ones it keeps the first."""
    return {name: value[: len(case.expected[name])] for name, value in outputs.items() if name in case.expected}


RUNNERS: Mapping[str, Runner] = {
    "garment-encoder": run_write,
    "controlnet": run_controlnet,
    "read": run_read,
    "t2i-sample": run_text_to_image,
    "tryon-sample": run_tryon,
}
