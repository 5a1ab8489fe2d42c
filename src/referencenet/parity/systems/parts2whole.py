"""Runs the golden cases of Parts2Whole: its pose net, masked banks, one step without and with guidance, pictures."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from referencenet.checkpoints.keymap import KeyMap
from referencenet.links.attach import write
from referencenet.links.bank import ReferenceBank
from referencenet.links.masks import token_mask
from referencenet.methods.parts2whole import PUBLISHED, Parts2WholePipeline, six_places, with_first_label
from referencenet.networks.pose_guider import PoseGuider
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.record import Produced, Runner, assemble, component_config, each_output
from referencenet.pipelines.prediction import Call, predicting
from referencenet.pipelines.spec import Canvas, Shown

PIXELS = 16  # of a mask's cell, and 8 of a latent
ENTRY = re.compile(r"bank\.(.+)\.(\d+)")
LEVEL = re.compile(r"token_mask\.\w+_(\d+)x(\d+)")

DETOUR = "the unconditional row is written for the comparison only: ours is neither written nor read"
UNET_KEYS = KeyMap(renames=[rename for file in PUBLISHED.files_of("unet") for rename in file.keymap.renames])


@torch.no_grad()
def run_pose_guider(case: Case) -> Produced:
    """The pose guider, with what its convolutions give."""
    guider = build_pose_guider(case)
    names = {name.replace("_", ".") if name.startswith("blocks") else name: name for name in case.expected}
    del names["pose_features"]
    kept: dict[str, Tensor] = {}
    with each_output(guider, names, kept):
        kept["pose_features"] = guider(case.input("pose"))
    return Produced(kept, {})


@torch.no_grad()
def run_reference_write(case: Case) -> Produced:
    """The masked bank, the masks of tokens, and a norm that is not masked."""
    check_fusion(case)
    masks = pixel_masks(case.input("mask_cells"))
    bank = write(
        build_reference_unet(case), case.input("ref_latents"), timestep=case.scalar("timestep"),
        encoder_hidden_states=case.input("part_text"),
    )  # fmt: skip
    outputs: dict[str, Tensor] = {}
    masked = bank.masked(masks)
    for name in case.expected:
        kind, _, place = name.partition(".")
        if kind == "bank":
            outputs[name] = masked.hidden[f"{place}.attn1"]
        elif kind == "norm1":
            outputs[name] = bank.hidden[f"{place}.attn1"]
        elif level := LEVEL.fullmatch(name):
            outputs[name] = token_mask(masks, int(level[1]) * int(level[2])).squeeze(-1)
    return Produced(outputs, {})


@torch.no_grad()
def run_read(case: Case) -> Produced:
    """One step of the denoiser that reads several parts, without or with guidance."""
    check_fusion(case)
    pipe, shown, latents = build_pipeline(case), shown_parts(case, "cells"), case.input("latents")
    guided = case.scalar("do_classifier_free_guidance")
    scale = case.scalar("guidance_scale") if guided else 1.0
    outputs: dict[str, Tensor] = {}
    watched = {"": "noise_pred"}
    for name in case.expected:
        kind, _, place = name.partition(".")
        if kind in ("attn_out", "attn2_out"):
            watched[f"{place}.attn2" if kind == "attn2_out" else place] = name
    settings = pipe.settle({"guidance_scale": scale})
    bank = pipe.bank_of(shown, 0)
    call = Call(canvas=canvas_of(latents), given=given(case), guidance=pipe.spec.guidance, bank=bank)
    with pipe.calling(settings), predicting(pipe, call) as prediction, each_output(pipe.unet, watched, outputs):
        outputs["noise_guided"] = prediction.begin(latents, case.scalar("timestep"))(None)
    outputs = {name: value[0] if isinstance(value, tuple) else value for name, value in outputs.items()}
    outputs["pose_features"] = pipe.pose_guider(case.input("pose"))
    entries = bank_entries(case, pipe, shown, guided)
    for name in case.expected:
        if match := ENTRY.fullmatch(name):
            outputs[name] = entries[int(match[2])].hidden[f"{match[1]}.attn1"]
    if not guided:
        del outputs["noise_guided"]
    return Produced(outputs, {name: DETOUR for name in outputs if guided and name.startswith("bank.")})


@torch.no_grad()
def run_sample(case: Case) -> Produced:
    """Pictures through the pipeline: as intended, and with the released program's texts and rounding."""
    check_fusion(case)
    pipe, shown = build_pipeline(case), shown_parts(case, "mask_cells")
    outputs = sampled(case, pipe, shown, given(case), "")
    if any(name.endswith("_as_released") for name in case.expected):
        first = shown.context[:1]
        texts = {**given(case), "prompt": (first, given(case)["prompt"][1])}
        found = sampled(case, pipe, with_first_label(shown), texts, "_as_released", half_precision_bank=True)
        outputs |= {name: value for name, value in found.items() if name in case.expected}
    return Produced(outputs, {})


def sampled(
    case: Case, pipe: Any, shown: Shown, values: Mapping[str, Any], suffix: str, **options: Any
) -> dict[str, Tensor]:
    """Latents (1, 4, h, w) after each step, and in the end."""
    outputs: dict[str, Tensor] = {}

    def keep(_pipe: Any, i: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        outputs[f"latents_step{i + 1}{suffix}"] = tensors["latents"]
        return tensors

    settings = pipe.settle({
        "num_inference_steps": case.scalar("num_inference_steps"), "guidance_scale": case.scalar("guidance_scale"),
        "guidance_rescale": case.scalar("guidance_rescale"), "eta": case.scalar("eta"),
        "latents": case.input("latents"), "callback_on_step_end": keep, "output_type": "latent", **options,
    })  # fmt: skip
    canvas = Canvas(width=case.scalar("width"), height=case.scalar("height"))
    with pipe.calling(settings):
        outputs[f"latents_final{suffix}"] = pipe.draw(shown, values, canvas, settings).images
    return outputs


# --- inputs and networks ----------------------------------------------------------------------------------------------


def pixel_masks(cells: Tensor) -> Tensor:
    """Cells (b, 1, h, w) as the masks of the cases: those below 0.6 are 0, others halved, (b, 1, 16 h, 16 w)."""
    halved = torch.where(cells < 0.6, torch.zeros_like(cells), cells * 0.5)
    return halved.repeat_interleave(PIXELS, 2).repeat_interleave(PIXELS, 3)


def shown_parts(case: Case, cells: str) -> Shown:
    """All parts of a case; masks that were stored as pictures are rounded to 8 bits."""
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


def bank_entries(case: Case, pipe: Any, shown: Shown, guided: bool) -> list[ReferenceBank]:
    """Per part the published bank entry; with guidance behind a row whose text is the negative prompt."""
    entries: list[ReferenceBank] = []
    assert shown.masks is not None  # all cases have them
    for latents, text, mask in zip(shown.latents, shown.context, shown.masks, strict=True):
        rows = [case.input("negative_text")[0], text] if guided else [text]
        bank = write(
            pipe.reference_unet, latents.expand(len(rows), -1, -1, -1), encoder_hidden_states=torch.stack(rows)
        )
        entries.append(bank.masked(mask.expand(len(rows), -1, -1, -1)))
    return entries


def canvas_of(latents: Tensor) -> Canvas:
    """The picture behind latents (b, 4, h, w)."""
    return Canvas(width=latents.shape[-1] * 8, height=latents.shape[-2] * 8, samples=latents.shape[0])


def build_pipeline(case: Case) -> Any:
    """The pipeline with the networks of a case."""
    unet = PUBLISHED.build["unet"](component_config(case, "unet")).eval()
    case.load(unet, "unet", UNET_KEYS)
    settings = dict(case.scalars.get("scheduler", {}))
    if settings.pop("class", "DDIMScheduler") != "DDIMScheduler":
        raise CaseError(f"{case.id}: the scheduler is {case.scalar('scheduler')['class']!r}; expected DDIMScheduler")
    return assemble(
        Parts2WholePipeline,
        reference_unet=build_reference_unet(case),
        unet=unet,
        pose_guider=build_pose_guider(case),
        scheduler=DDIMScheduler(**settings),
    )


def build_reference_unet(case: Case) -> Any:
    """The reference net, cut behind its last norm."""
    unet = PUBLISHED.build["reference_unet"](component_config(case, "reference_unet")).eval()
    case.load(unet, "reference_unet")
    return unet


def build_pose_guider(case: Case) -> PoseGuider:
    """The pose guider with its weights."""
    config = component_config(case, "pose_guider")
    guider = PoseGuider(**{**config, "block_out_channels": tuple(config["block_out_channels"])}).eval()
    case.load(guider, "pose_guider")
    return guider


def check_fusion(case: Case) -> None:
    """Refuse cases whose denoiser reads in some blocks only: the released model reads in all."""
    if case.scalars.get("fusion_blocks", "full") != "full":
        raise CaseError(f"{case.id}: fusion_blocks is {case.scalar('fusion_blocks')!r}; expected 'full'")


RUNNERS: Mapping[str, Runner] = {
    "pose-guider": run_pose_guider,
    "reference-write": run_reference_write,
    "read-nocfg": run_read,
    "read-cfg": run_read,
    "sample": run_sample,
}
"""Kind of a case to what runs it."""
