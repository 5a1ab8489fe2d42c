"""Animate Anyone's golden cases: its parts, one step, whole films of both models, windows and the training loss."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from referencenet.methods.animate_anyone import (
    PUBLISHED,
    PUBLISHED_REENACT,
    SPEC,
    AnimateAnyonePipeline,
    FaceReenactmentPipeline,
)
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.kinds import (
    WRITER_NOTE,
    Passes,
    banked,
    drawn,
    film_windows,
    motion,
    predict,
    sample,
    values,
    velocity,
)
from referencenet.parity.record import Produced, Runner, cut, fold, observed, unfold
from referencenet.parity.system import PORTRAIT_FILM, System, guider, scheduler_of
from referencenet.pipelines.encoders import IMAGE_TOKEN
from referencenet.pipelines.passes import Pass
from referencenet.pipelines.spec import Shown
from referencenet.sampling.between import interpolate_frames
from referencenet.sampling.windows import ordered_halving, published_windows

FIRST_CHANNELS = re.compile(r"(.*)_first(\d+)")
MOTION_OUTPUT = re.compile(r"mm_(?:(down|up)(\d+)|mid)_(\d+)")


SYSTEM = System(
    pipeline=AnimateAnyonePipeline,
    published=PUBLISHED,
    networks={**PORTRAIT_FILM, "pose_guider": guider("pose_guider")},
)
REENACT = System(
    pipeline=FaceReenactmentPipeline,
    published=PUBLISHED_REENACT,
    networks={**PORTRAIT_FILM, "pose_guider1": guider("pose_guider1"), "pose_guider2": guider("pose_guider2")},
)


@torch.no_grad()
def run_pose(case: Case) -> Produced:
    """The pose guider on frames (b, 3, f, height, width), and its layers behind their activations."""
    network, pictures = SYSTEM.network(case, "pose_guider"), case.input("pose_images")
    watched = {f"blocks.{i}": f"after_block_{i}" for i in range(len(network.blocks))}
    features, kept = observed(network, watched, fold(pictures))
    layers = {name: F.silu(value) for name, value in kept.items()} | {"pose_fea": features}
    return Produced(cut(case, {name: unfold(value, pictures.shape[2]) for name, value in layers.items()}), {})


@torch.no_grad()
def run_step(case: Case) -> Produced:
    """The reference pass, and one prediction without the reference, with it, and with guidance."""
    pipe, told, film = SYSTEM.pipe(case), shown(case), one_film(case, "pose_images")
    written = case.scalar("reference_timestep")
    doubled = replace(told.with_blank(), latents=torch.cat([told.latents, told.latents]))
    outputs = banked(pipe, told, written, "bank.{place}") | banked(pipe, doubled, written, "bank_cfg.{place}")
    outputs["reference_unet_output"] = pipe.reference_unet(told.latents, written, told.context).sample[:, :4]
    outputs["pose_fea"] = pipe.pose_guider(film).transpose(0, 1).unsqueeze(0)
    step = partial(predict, pipe, case.input("latents"), case.scalar("timestep"), told, {"poses": drawn(film)})
    outputs |= step(raw="pred_noref", guidance=Passes(Pass(factor=1.0, reads=None)))
    for bits in (16, 32):
        rounding = {"half_precision_bank": bits == 16}
        outputs |= step(raw=f"pred_nocfg_bank{bits}", watched=motion_outputs(case), **rounding)
        outputs |= step(raw=f"pred_cfg_bank{bits}", scale=2.0, **rounding)
    for name in case.expected:
        part = FIRST_CHANNELS.fullmatch(name)
        if part is not None and part[1] in outputs:
            outputs[name] = outputs[part[1]][:, : int(part[2])]
    return Produced(outputs, {"reference_unet_output": WRITER_NOTE})


def run_sample(case: Case) -> Produced:
    """A film with the bank rounded to half precision, and not."""
    pipe, film = SYSTEM.pipe(case, scheduler=scheduler_of(case)), one_film(case, "pose_images")
    outputs = sampled(case, pipe, film, half_precision_bank=True)
    exact = sampled(case, pipe, film) if any(name.endswith("_bank32") for name in case.expected) else {}
    return Produced(outputs | {f"{name}_bank32": value for name, value in exact.items()}, {})


@torch.no_grad()
def run_reenact(case: Case) -> Produced:
    """A film of the face re-enactment model."""
    pipe = REENACT.pipe(case, scheduler=scheduler_of(case))
    outputs = sampled(case, pipe, (one_film(case, "pose_up_images"), one_film(case, "pose_down_images")))
    both = shown(case).with_blank()
    outputs["reference_output"] = pipe.reference_unet(both.latents, 0, both.context).sample.unsqueeze(2)
    outputs |= banked(pipe, shown(case), 0, module_name)
    return Produced(outputs, {"reference_output": WRITER_NOTE})


def sampled(case: Case, pipe: Any, poses: Any, **options: Any) -> dict[str, Tensor]:
    """A film through the pipeline's call, with the published windows."""
    call = partial(pipe, shown(case), poses, num_films=case.inputs["latents"].shape[0])
    windows = film_windows(case, case.scalars, SPEC)
    names = {"raw": "unet_call_0", "steps": "steps"}
    outputs = sample(case, pipe, call, "latents_after_step_{}", windows=windows, **names, **options)
    alphas = pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps]
    return outputs | {"alphas_cumprod_at_timesteps": alphas}


def context(case: Case) -> dict[str, Any]:
    """The published windows, the order of halves, latents between frames."""
    outputs: dict[str, Any] = {}
    for i, query in enumerate(case.scalar("queries")):
        names = {"stride": "context_stride", "overlap": "context_overlap", "closed_loop": "closed_loop", "step": "step"}
        options = {ours: query[theirs] for ours, theirs in names.items()}
        outputs[f"windows_{i}"] = published_windows(query["num_frames"], query["context_size"], **options)
    for name in case.expected:
        if match := re.fullmatch(r"ordered_halving_0_to_(\d+)", name):
            outputs[name] = [ordered_halving(step) for step in range(int(match[1]) + 1)]
        elif match := re.fullmatch(r"interpolate_x(\d+)_(linear|slerp)", name):
            outputs[name] = interpolate_frames(case.input("latents"), int(match[1]), match[2])  # pyright: ignore[reportArgumentType]
    return outputs


def train(case: Case) -> dict[str, Tensor]:
    """The training loss of a prediction that the case gives."""
    loss, timesteps, outputs = velocity(case, "offset_noise")
    prediction, target = case.input("model_pred"), outputs["target"]
    return outputs | {
        "per_sample_mse": loss.errors(prediction, target),
        "loss": loss(prediction, target, timesteps).reshape(1),
        "alphas_cumprod": loss.scheduler.alphas_cumprod,
    }


def shown(case: Case) -> Shown:
    """What the writer is shown."""
    token = case.input("clip_embeds")
    return Shown(latents=case.input("ref_latents"), context=token, kept={IMAGE_TOKEN: token})


def one_film(case: Case, name: str) -> Tensor:
    """Pose pictures of one film: (1, 3, f, height, width) to (f, 3, height, width)."""
    pictures = case.input(name)
    if pictures.shape[0] != 1:
        raise CaseError(f"{case.id}: {name} holds {pictures.shape[0]} films; the kind {case.kind!r} has one")
    return pictures[0].transpose(0, 1)


def motion_outputs(case: Case) -> dict[str, str]:
    """Motion modules whose outputs the case expects, as in mm_down0_0, and their names there."""
    found = filter(None, map(MOTION_OUTPUT.match, case.expected))
    return {f"{f'{m[1]}_blocks.{m[2]}' if m[1] else 'mid_block'}.motion_modules.{m[3]}": m[0] for m in found}


def module_name(site: str) -> str:
    """A site as the re-enactment code names it."""
    place, number, _, layer, *_ = site.replace("mid_block", "mid_block.0").split(".")
    stage = {"down_blocks": "CrossAttnDown", "mid_block": "Mid", "up_blocks": "CrossAttnUp"}[place]
    block = layer if stage == "Mid" else f"{number}__{layer}"
    return f"bank.{stage}Block_{block}_TransformerModel_0_TransformerBlock"


RUNNERS: Mapping[str, Runner] = {
    "pose": run_pose,
    "motion": motion(
        "hidden_states",
        "output",
        {"norm": "after_norm", "attn1": "attention_0", "attn2": "attention_1", "ff": "feed_forward"},
    ),
    "step": run_step,
    "sample": run_sample,
    "reenact": run_reenact,
    "context": values(context),
    "train": values(train),
}
