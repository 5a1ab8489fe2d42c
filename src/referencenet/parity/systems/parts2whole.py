"""Parts2Whole's golden cases: its pose net, masked banks, one step without and with guidance, pictures."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from referencenet.checkpoints.keymap import KeyMap
from referencenet.links.masks import token_mask
from referencenet.methods.parts2whole import PUBLISHED, Parts2WholePipeline, six_places, with_first_label
from referencenet.parity import kinds
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.kinds import Outputs
from referencenet.parity.record import Runner, observed
from referencenet.parity.system import Network, System, guider, scheduler_of
from referencenet.pipelines.spec import Shown

PIXELS = 16  # of a mask's cell, and 8 of a latent
LEVEL = re.compile(r"token_mask\.\w+_(\d+)x(\d+)")
DETOUR = "the unconditional row is written for the comparison only: ours is neither written nor read"
BOTH_FILES = KeyMap(renames=[rename for file in PUBLISHED.files_of("unet") for rename in file.keymap.renames])

SYSTEM = System(
    Parts2WholePipeline,
    {
        "unet": Network("unet", keymap=lambda _case: BOTH_FILES),
        "reference_unet": Network("reference_unet"),
        "pose_guider": guider("pose_guider"),
    },
)


def pixel_masks(cells: Tensor) -> Tensor:
    """Cells (b, 1, h, w) as the masks of the cases: those below 0.6 are 0, others halved, (b, 1, 16 h, 16 w)."""
    halved = torch.where(cells < 0.6, torch.zeros_like(cells), cells * 0.5)
    return halved.repeat_interleave(PIXELS, 2).repeat_interleave(PIXELS, 3)


def check_fusion(case: Case) -> None:
    """Refuse cases whose denoiser reads in some blocks only: the released model reads in all."""
    if case.scalars.get("fusion_blocks", "full") != "full":
        raise CaseError(f"{case.id}: fusion_blocks is {case.scalar('fusion_blocks')!r}; expected 'full'")


def shown_parts(case: Case, cells: str) -> Shown:
    """All parts of a case; masks that were stored as pictures are rounded to 8 bits."""
    check_fusion(case)
    count = sum(name.startswith("ref_latents_") for name in case.inputs)
    latents, texts, masks, images = (
        torch.cat([case.input(f"{name}_{i}") for i in range(count)])
        for name in ("ref_latents", "part_text", cells, "clip_image")
    )
    masks = pixel_masks(masks)
    masks = torch.round(255 * masks) / 255 if cells == "mask_cells" else masks
    kept = {"images": six_places(images.flatten(0, -2))}
    return Shown(latents=latents, context=texts, masks=masks, kept=kept)


def given(case: Case) -> dict[str, Any]:
    """Texts and pose."""
    prompt = case.input("prompt_text")
    negative = case.input("negative_text") if "negative_text" in case.inputs else prompt
    return {"prompt": (prompt, negative), "pose": [case.input("pose")]}


def pose_guider(case: Case) -> Outputs:
    """The pose guider, with what its convolutions give."""
    watched = {name.replace("blocks_", "blocks."): name for name in case.expected if name != "pose_features"}
    features, kept = observed(SYSTEM.network(case, "pose_guider"), watched, case.input("pose"))
    return {**kept, "pose_features": features}


def write(case: Case) -> Outputs:
    """The masked bank, the masks of tokens, and norms that are not masked."""
    check_fusion(case)
    pipe, masks, t = SYSTEM.pipe(case, "reference_unet"), pixel_masks(case.input("mask_cells")), case.scalar("timestep")
    parts = Shown(latents=case.input("ref_latents"), context=case.input("part_text"))
    outputs = kinds.banked(pipe, parts, t, "norm1.{block}")
    outputs |= kinds.banked(pipe, replace(parts, masks=masks), t, "bank.{block}")
    levels = {name: LEVEL.fullmatch(name) for name in case.expected}
    sizes = {name: int(level[1]) * int(level[2]) for name, level in levels.items() if level}
    return outputs | {name: token_mask(masks, size).squeeze(-1) for name, size in sizes.items()}


def read(case: Case) -> Outputs:
    """One prediction of the denoiser that reads several parts, without or with guidance."""
    pipe, parts, t = SYSTEM.pipe(case), shown_parts(case, "cells"), case.scalar("timestep")
    guided = case.scalar("do_classifier_free_guidance")
    scale = case.scalar("guidance_scale") if guided else 1.0
    places = [name.partition(".") for name in case.expected]
    watched = {place: f"attn_out.{place}" for kind, _, place in places if kind == "attn_out"}
    watched |= {f"{place}.attn2": f"attn2_out.{place}" for kind, _, place in places if kind == "attn2_out"}
    names = {"raw": "noise_pred", "guided": "noise_guided"}
    outputs = kinds.predict(pipe, case.input("latents"), t, parts, given(case), watched=watched, scale=scale, **names)
    outputs["pose_features"] = pipe.pose_guider(case.input("pose"))
    negative = [case.input("negative_text")] if guided else []  # of a published row that nobody reads
    assert parts.masks is not None  # all cases have them
    for i, (latents, text, mask) in enumerate(zip(parts.latents, parts.context, parts.masks, strict=True)):
        rows = torch.cat([*negative, text[None]])
        part = Shown(latents=latents.expand(len(rows), -1, -1, -1), context=rows, masks=mask[None])
        outputs |= kinds.banked(pipe, part, 0, f"bank.{{block}}.{i}")
    return outputs


def sample(case: Case) -> Outputs:
    """Pictures through the pipeline: as intended, and with the released program's texts and rounding."""
    pipe, parts, values = SYSTEM.pipe(case, scheduler=scheduler_of(case)), shown_parts(case, "mask_cells"), given(case)
    outputs = sampled(case, pipe, parts, values)
    if any(name.endswith("_as_released") for name in case.expected):
        texts = {**values, "prompt": (parts.context[:1], values["prompt"][1])}
        found = sampled(case, pipe, with_first_label(parts), texts, half_precision_bank=True)
        outputs |= {f"{name}_as_released": value for name, value in found.items()}
    return outputs


def sampled(case: Case, pipe: Any, parts: Shown, values: Mapping[str, Any], **options: Any) -> Outputs:
    """Latents (1, 4, h, w) after each step, and in the end."""

    def call(**options: Any) -> None:
        settings = pipe.settle(options)
        with pipe.calling(settings):
            pipe.draw(parts, values, kinds.canvas_of(settings.latents), settings)

    return kinds.sample(case, pipe, call, "latents_step{}", first=1, **options)


RUNNERS: Mapping[str, Runner] = {
    "pose-guider": kinds.runner(pose_guider),
    "reference-write": kinds.runner(write),
    "read-nocfg": kinds.runner(read),
    "read-cfg": kinds.runner(read, bank=DETOUR),
    "sample": kinds.runner(sample),
}
