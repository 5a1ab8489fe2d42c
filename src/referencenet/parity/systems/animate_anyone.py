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
    AnimateAnyonePipeline,
    FaceReenactmentPipeline,
)
from referencenet.parity import kinds
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.kinds import Outputs
from referencenet.parity.record import Runner, fold, observed, unfold
from referencenet.parity.system import PORTRAIT_FILM, System, guider, scheduler_of
from referencenet.pipelines.encoders import IMAGE_TOKEN
from referencenet.pipelines.spec import Shown
from referencenet.sampling.between import interpolate_frames
from referencenet.sampling.windows import ordered_halving, published_windows

MOTION_OUTPUT = re.compile(r"mm_(?:(down|up)(\d+)|mid)_(\d+)")

SYSTEM = System(AnimateAnyonePipeline, {**PORTRAIT_FILM, "pose_guider": guider("pose_guider")})
GUIDERS = {name: guider(name) for name in ("pose_guider1", "pose_guider2")}
REENACT = System(FaceReenactmentPipeline, {**PORTRAIT_FILM, **GUIDERS})


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


def pose(case: Case) -> Outputs:
    """The pose guider on frames (b, 3, f, height, width), and its layers behind their activations."""
    network, pictures = SYSTEM.network(case, "pose_guider"), case.input("pose_images")
    watched = {f"blocks.{i}": f"after_block_{i}" for i in range(len(network.blocks))}
    features, kept = observed(network, watched, fold(pictures))
    layers = {name: F.silu(value) for name, value in kept.items()} | {"pose_fea": features}
    return {name: unfold(value, pictures.shape[2]) for name, value in layers.items()}


def step(case: Case) -> Outputs:
    """The reference pass, and one prediction without the reference, with it, and with guidance."""
    pipe, told, film = SYSTEM.pipe(case), shown(case), one_film(case, "pose_images")
    t_written, features = case.scalar("reference_timestep"), pipe.pose_guider(film).transpose(0, 1).unsqueeze(0)
    outputs = {name: features for name in case.expected if name.startswith("pose_fea")}
    outputs["reference_unet_output"] = pipe.reference_unet(told.latents, t_written, told.context).sample
    doubled = replace(told.with_blank(), latents=torch.cat([told.latents, told.latents]))
    outputs |= kinds.banked(pipe, told, t_written, "bank.{place}")
    outputs |= kinds.banked(pipe, doubled, t_written, "bank_cfg.{place}")
    given = {"poses": kinds.drawn(film)}
    predict = partial(kinds.predict, pipe, case.input("latents"), case.scalar("timestep"), told, given)
    outputs |= predict(raw="pred_noref", guidance=kinds.UNREAD)
    for bits in (16, 32):
        rounding = {"half_precision_bank": bits == 16}
        outputs |= predict(raw=f"pred_nocfg_bank{bits}", watched=motion_outputs(case), **rounding)
        outputs |= predict(raw=f"pred_cfg_bank{bits}", scale=2.0, **rounding)
    return outputs


def motion_outputs(case: Case) -> dict[str, str]:
    """Motion modules whose outputs the case expects, as in mm_down0_0, and their names there."""
    found = {name: MOTION_OUTPUT.match(name) for name in case.expected}
    place = {name: f"{m[1]}_blocks.{m[2]}" if m[1] else "mid_block" for name, m in found.items() if m}
    return {f"{place[name]}.motion_modules.{m[3]}": name for name, m in found.items() if m}


def sample(case: Case) -> Outputs:
    """A film with the bank rounded to half precision, and not."""
    pipe, film = SYSTEM.pipe(case, scheduler=scheduler_of(case)), one_film(case, "pose_images")
    outputs = sampled(case, pipe, film, half_precision_bank=True)
    exact = sampled(case, pipe, film) if any(name.endswith("_bank32") for name in case.expected) else {}
    return outputs | {f"{name}_bank32": value for name, value in exact.items()}


def reenact(case: Case) -> Outputs:
    """A film of the face re-enactment model."""
    pipe, both = REENACT.pipe(case, scheduler=scheduler_of(case)), shown(case).with_blank()
    outputs = sampled(case, pipe, (one_film(case, "pose_up_images"), one_film(case, "pose_down_images")))
    outputs["reference_output"] = pipe.reference_unet(both.latents, 0, both.context).sample.unsqueeze(2)
    return outputs | kinds.banked(pipe, shown(case), 0, module_name)


def module_name(site: str) -> str:
    """A site as the re-enactment code names it."""
    place, number, _, layer, *_ = site.replace("mid_block", "mid_block.0").split(".")
    stage = {"down_blocks": "CrossAttnDown", "mid_block": "Mid", "up_blocks": "CrossAttnUp"}[place]
    block = layer if stage == "Mid" else f"{number}__{layer}"
    return f"bank.{stage}Block_{block}_TransformerModel_0_TransformerBlock"


def sampled(case: Case, pipe: Any, poses: Any, **options: Any) -> Outputs:
    """A film through the pipeline's call, with the published windows."""
    call = partial(pipe, shown(case), poses, num_films=case.inputs["latents"].shape[0])
    options |= {"windows": kinds.film_windows(case, case.scalars, pipe.spec), "raw": "unet_call_0", "steps": "steps"}
    return kinds.sample(case, pipe, call, "latents_after_step_{}", **options)


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


def train(case: Case) -> Outputs:
    """The training loss of a prediction that the case gives."""
    loss, timesteps, outputs = kinds.velocity(case, "offset_noise")
    prediction, target = case.input("model_pred"), outputs["target"]
    return outputs | {
        "per_sample_mse": loss.errors(prediction, target),
        "loss": loss(prediction, target, timesteps).reshape(1),
        "alphas_cumprod": loss.scheduler.alphas_cumprod,
    }


MOTION = {"norm": "after_norm", "attn1": "attention_0", "attn2": "attention_1", "ff": "feed_forward"}

RUNNERS: Mapping[str, Runner] = {
    "pose": kinds.runner(pose, in_part=True),
    "motion": kinds.motion("hidden_states", "output", MOTION),
    "step": kinds.runner(step, in_part=True, reference_unet_output=kinds.WRITER_NOTE),
    "sample": kinds.runner(sample),
    "reenact": kinds.runner(reenact, reference_output=kinds.WRITER_NOTE),
    "context": kinds.runner(context),
    "train": kinds.runner(train),
}
