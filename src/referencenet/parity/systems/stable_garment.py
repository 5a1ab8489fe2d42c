"""StableGarment's golden cases: its garment encoder and ControlNet, one step, both pipelines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from referencenet.methods.stable_garment import (
    LINKS,
    StableGarmentPipeline,
    StableGarmentTryOnPipeline,
)
from referencenet.parity import kinds
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.kinds import Outputs
from referencenet.parity.record import Runner, observed
from referencenet.parity.system import Network, System, scheduler_of
from referencenet.pipelines.spec import Shown

STEP = re.compile(r"(midup|full)(_cfg)?(?:_fidelity(\d+))?(?:_repeat(\d+))?")
CONTROL = ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end", "guess_mode")

NETWORKS = {"unet": Network("unet"), "reference_unet": Network("garment_encoder")}
SYSTEM = System(StableGarmentPipeline, NETWORKS)
TRYON_NETWORKS = {**NETWORKS, "controlnet": Network("controlnet"), "guider": Network("controlnet")}
TRYON = System(StableGarmentTryOnPipeline, TRYON_NETWORKS)
SHOWN = kinds.Shows("garment_latents", "garment_text_embeds")


def keep_mask(case: Case) -> Tensor:
    """1 = keep, (r, 1, H, W)."""
    return (case.input("keep_mask") >= 0.5).float()


def controlnet(case: Case) -> Outputs:
    """The guider's two terms, the ControlNet's residuals, plainly and in guess mode."""
    network, guider = TRYON.network(case, "controlnet"), TRYON.network(case, "guider")
    terms = {"conv_in_extra": "conv_in_extra", "controlnet_cond_embedding": "cond_embedding"}
    condition = torch.cat([keep_mask(case), case.input("densepose")], dim=1)
    features, outputs = observed(guider, terms, condition, case.input("agnostic_latents"))
    inputs = case.input("latents"), case.scalar("timestep"), case.input("prompt_embeds"), features
    for prefix in ("", "guess_"):
        options = {"conditioning_scale": case.scalar("conditioning_scale"), "guess_mode": bool(prefix)}
        outputs |= kinds.controlled(network, f"{prefix}down_{{}}", f"{prefix}mid", *inputs, **options)
    return outputs


def read(case: Case) -> Outputs:
    """One prediction in each of the ways that the case names."""
    pipe, told, latents = SYSTEM.pipe(case), SHOWN(case), case.input("latents")
    given = {"prompt": (case.input("prompt_embeds"), case.input("negative_prompt_embeds"))}
    predict = partial(kinds.predict, pipe, latents, case.scalar("timestep"), given=given)
    outputs = predict(told, raw="plain/noise_pred", guidance=kinds.UNREAD)
    for way in sorted({name.split("/")[0] for name in case.expected} - {"plain"}):
        match = STEP.fullmatch(way)
        if match is None:
            raise CaseError(f"{case.id}: {way!r} names no way to read; expected such as midup_cfg_fidelity06")
        blocks, is_guided, fidelity, repeat = match.groups()
        garments = len(latents) // int(repeat or 1)
        places = [name.removeprefix(f"{way}/block/") for name in case.expected if name.startswith(f"{way}/block/")]
        pipe.register_to_config(fusion_blocks=blocks)
        outputs |= predict(
            Shown(latents=told.latents[:garments], context=told.context[:garments]),
            raw=f"{way}/noise_pred",
            guided=f"{way}/guided",
            watched={f"{place}.transformer_blocks.0": f"{way}/block/{place}" for place in places},
            scale=case.scalars.get("guidance_scale_of_guided", 2.0) if is_guided else 1.0,
            link=replace(LINKS[blocks], fidelity=float(f"{fidelity[0]}.{fidelity[1:]}") if fidelity else 1.0),
        )
    return outputs


def text_to_image(case: Case) -> Outputs:
    """Pictures through the pipeline's call."""
    return sampled(case, SYSTEM)


def tryon(case: Case) -> Outputs:
    """Pictures through the try-on pipeline's call."""
    given = {"agnostic_latents": case.input("agnostic_latents"), "densepose": case.input("densepose")}
    control = {name: case.scalars[name] for name in CONTROL if name in case.scalars}
    return sampled(case, TRYON, person=None, mask=1 - keep_mask(case), **given, **control)


def sampled(case: Case, system: System, **given: Any) -> Outputs:
    """The latents behind every step of a call, and its timesteps."""
    pipe = system.pipe(case, scheduler=scheduler_of(case), fusion_blocks=case.scalar("fusion_blocks"))
    prompts = {name: case.input(name) for name in ("prompt_embeds", "negative_prompt_embeds")}
    numbers = {name: case.scalars.get(name, 1) for name in ("num_images_per_prompt", "style_fidelity")}
    call = partial(pipe, garment=SHOWN(case), **prompts, **numbers, **given)
    return kinds.sample(case, pipe, call, "latents_{}")


RUNNERS: Mapping[str, Runner] = {
    "garment-encoder": kinds.writes(SYSTEM, SHOWN, "bank/{place}", in_part=True, fusion_blocks="full"),
    "controlnet": kinds.runner(controlnet, in_part=True),
    "read": kinds.runner(read, in_part=True),
    "t2i-sample": kinds.runner(text_to_image),
    "tryon-sample": kinds.runner(tryon),
}
