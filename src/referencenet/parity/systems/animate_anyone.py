"""Runs the golden cases of Animate Anyone: its parts, one step, whole films, windows and the training loss.

All networks are built by the functions that published files are read with, and filled through the same key maps. A
configuration or scalar that has no counterpart is an error: a case must not pass by being half read.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from referencenet.checkpoints.motion_keys import MOTION_KEYS
from referencenet.links.attach import attach, write
from referencenet.methods.animate_anyone import PUBLISHED, AnimateAnyonePipeline, FaceReenactmentPipeline
from referencenet.networks.layout import film_config, picture_config
from referencenet.networks.motion import SpatioTemporalUNet
from referencenet.networks.pose_guider import PoseGuider
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.record import (
    Produced,
    Runner,
    assemble,
    build_motion_module,
    build_scheduler,
    by_frame,
    component_config,
    each_output,
    fold,
    unfold,
)
from referencenet.pipelines.encoders import IMAGE_TOKEN
from referencenet.pipelines.passes import reading_plan
from referencenet.pipelines.spec import Shown
from referencenet.sampling.between import interpolate_frames
from referencenet.sampling.windows import Windows, ordered_halving, published_windows
from referencenet.training.velocity_loss import VelocityLoss

OUTPUT_NOTE = "plain pass: our own write pass stops after its last site"
FIRST_CHANNELS = re.compile(r"(.*)_first(\d+)")
BLOCK = re.compile(r"(CrossAttn)?(Down|Up|Mid)Block_(\d+)_(?:_(\d+)_)?(?:TransformerModel_(\d+)_)?TransformerBlock")


# --- the kinds --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def run_pose(case: Case) -> Produced:
    """The pose guider on frames (b, 3, f, height, width)."""
    guider = build_pose_guider(case, "pose_guider")
    kept: dict[str, Tensor] = {}
    with each_output(guider, {f"blocks.{i}": f"after_block_{i}" for i in range(len(guider.blocks))}, kept):
        kept["pose_fea"] = guide(guider, case.input("pose_images"))
    frames = kept["pose_fea"].shape[2]
    outputs = {
        name: value if name == "pose_fea" else unfold(F.silu(value), frames)[:, : case.expected[name].shape[1]]
        for name, value in kept.items()
        if name in case.expected
    }
    return Produced(outputs, {})


@torch.no_grad()
def run_motion(case: Case) -> Produced:
    """One motion module on (b, c, f, h, w), with what its layers give."""
    settings = motion_settings(case, component_config(case, "motion_module"))
    module = build_motion_module(case, heads=settings["motion_heads"], positions=settings["num_positions"])
    hidden = case.input("hidden_states")
    batch, _, frames, height, width = hidden.shape
    kept: dict[str, Tensor] = {}
    first = "transformer_blocks.0"
    names = {
        "norm": "after_norm",
        f"{first}.attn1": "attention_0",
        f"{first}.attn2": "attention_1",
        f"{first}.ff": "feed_forward",
    }
    with each_output(module, names, kept):
        output = module(fold(hidden), num_frames=frames)
    outputs = {
        name: fold(value) if name == "after_norm" else by_frame(value, batch, height * width)
        for name, value in kept.items()
    }
    table: Any = module.get_submodule(first).pos_embed
    rows = case.expected["position_table"].shape[1] if "position_table" in case.expected else 0
    return Produced(outputs | {"output": unfold(output, frames), "position_table": table.pe[:, :rows]}, {})


@torch.no_grad()
def run_step(case: Case) -> Produced:
    """The reference pass, and one denoising pass without the reference, with it, and with guidance."""
    reference_unet, denoiser = build_reference(case, "reference_unet"), build_denoiser(case, "denoising_unet")
    latents, token, clean = case.input("latents"), case.input("clip_embeds"), case.input("ref_latents")
    condition = guide(build_pose_guider(case, "pose_guider"), case.input("pose_images"))
    t, t_reference, films = case.scalar("timestep"), case.scalar("reference_timestep"), latents.shape[0]
    bank = write(reference_unet, clean, timestep=t_reference, encoder_hidden_states=token)
    both = torch.cat([torch.zeros_like(token), token])
    doubled = write(reference_unet, torch.cat([clean, clean]), timestep=t_reference, encoder_hidden_states=both)
    outputs: dict[str, Tensor] = {
        "pose_fea": condition,
        "pred_noref": denoiser(latents, t, token, condition=condition).sample,
        "reference_unet_output": reference_unet(clean, t_reference, token).sample[:, :4],
    }
    kept: dict[str, Tensor] = {}
    passes = AnimateAnyonePipeline.spec.guidance.passes(t, 2.0)
    for suffix, read in (("bank32", bank), ("bank16", bank.map(lambda tensor: tensor.half().float()))):
        with attach(denoiser) as link:
            with link.reading(read), each_output(denoiser, motion_names(case), kept if suffix == "bank32" else {}):
                outputs[f"pred_nocfg_{suffix}"] = denoiser(latents, t, token, condition=condition).sample
            with link.reading(read, plan=reading_plan(passes, films, read.rows)):
                twice = {"condition": torch.cat([condition, condition])}
                outputs[f"pred_cfg_{suffix}"] = denoiser(torch.cat([latents, latents]), t, both, **twice).sample
    outputs |= {name: unfold(value, latents.shape[2]) for name, value in kept.items()}
    for name in case.expected:
        if name.startswith(("bank.", "bank_cfg.")):
            prefix, site = name.split(".", 1)
            outputs[name] = (bank if prefix == "bank" else doubled).hidden[f"{site}.transformer_blocks.0.attn1"]
        cut = FIRST_CHANNELS.fullmatch(name)
        if cut is not None and cut[1] in outputs:
            outputs[name] = outputs[cut[1]][:, : int(cut[2])]
    return Produced(outputs, {"reference_unet_output": OUTPUT_NOTE})


@torch.no_grad()
def run_sample(case: Case) -> Produced:
    """A film through the pipeline's call, with the published windows; the bank rounded to half precision, and not."""
    pipe = assemble(
        AnimateAnyonePipeline,
        reference_unet=build_reference(case, "reference_unet"),
        unet=build_denoiser(case, "denoising_unet"),
        pose_guider=build_pose_guider(case, "pose_guider"),
        scheduler=build_scheduler(case),
    )
    poses = one_film(case, "pose_images")
    plain = film(case, pipe, poses, half_precision_bank=True)
    exact = film(case, pipe, poses) if any(name.endswith("_bank32") for name in case.expected) else {}
    timesteps = pipe.scheduler.timesteps
    outputs = plain | {f"{name}_bank32": value for name, value in exact.items()}
    outputs |= {
        "timesteps": timesteps.float(),
        "alphas_cumprod_at_timesteps": pipe.scheduler.alphas_cumprod[timesteps],
    }
    return Produced(outputs, {})


@torch.no_grad()
def run_reenact(case: Case) -> Produced:
    """A film of the face re-enactment model."""
    reference_unet = UNet2DConditionModel(**picture_config(component_config(case, "reference_unet"))).eval()
    case.load(reference_unet, "reference_unet")
    pipe = assemble(
        FaceReenactmentPipeline,
        reference_unet=reference_unet,
        unet=build_denoiser(case, "denoising_unet"),
        pose_guider1=build_pose_guider(case, "pose_guider1"),
        pose_guider2=build_pose_guider(case, "pose_guider2"),
        scheduler=build_scheduler(case),
    )
    outputs = film(case, pipe, (one_film(case, "pose_up_images"), one_film(case, "pose_down_images")))
    bank, both = pipe.bank_of(shown(case), 0), shown(case).with_blank()
    outputs["reference_output"] = reference_unet(both.latents, 0, both.context).sample.unsqueeze(2)
    outputs |= {name: bank.hidden[site_of(case, name)] for name in case.expected if name.startswith("bank.")}
    return Produced(outputs, {"reference_output": OUTPUT_NOTE})


@torch.no_grad()
def run_context(case: Case) -> Produced:
    """The published windows, the order of halves, latents between frames."""
    outputs: dict[str, Tensor] = {}
    for i, query in enumerate(case.scalar("queries")):
        windows = published_windows(
            query["num_frames"],
            query["context_size"],
            stride=query["context_stride"],
            overlap=query["context_overlap"],
            closed_loop=query["closed_loop"],
            step=query["step"],
        )
        outputs[f"windows_{i}"] = torch.tensor(windows, dtype=torch.float32)
    for name in case.expected:
        if match := re.fullmatch(r"ordered_halving_0_to_(\d+)", name):
            outputs[name] = torch.tensor([ordered_halving(step) for step in range(int(match[1]) + 1)])
        elif match := re.fullmatch(r"interpolate_x(\d+)_(linear|slerp)", name):
            outputs[name] = interpolate_frames(case.input("latents"), int(match[1]), match[2])  # pyright: ignore[reportArgumentType]
    return Produced(outputs, {})


def run_train(case: Case) -> Produced:
    """The training loss."""
    loss = VelocityLoss(
        scheduler=build_scheduler(case),
        noise_offset=case.scalar("noise_offset"),
        snr_gamma=case.scalar("snr_gamma"),
    )
    timesteps = torch.tensor(case.scalar("timesteps"))
    latents, prediction = case.input("latents"), case.input("model_pred")
    noise = loss.offset(case.input("noise"), case.input("offset_noise"))
    target = loss.target(latents, noise, timesteps)
    outputs = {
        "noisy": loss.noisy(latents, noise, timesteps),
        "target": target,
        "snr": loss.snr(timesteps),
        "weights": loss.weights(timesteps),
        "per_sample_mse": loss.errors(prediction, target),
        "loss": loss(prediction, target, timesteps).reshape(1),
        "alphas_cumprod": loss.scheduler.alphas_cumprod,
    }
    return Produced(outputs, {})


# --- networks ---------------------------------------------------------------------------------------------------------


def build_pose_guider(case: Case, name: str) -> PoseGuider:
    """A pose guider with its weights."""
    config = component_config(case, name)
    guider = PoseGuider(**{**config, "block_out_channels": tuple(config["block_out_channels"])}).eval()
    case.load(guider, name)
    return guider


def build_reference(case: Case, name: str) -> nn.Module:
    """A reference net without an output head, with its weights."""
    unet = PUBLISHED.build["reference_unet"](component_config(case, name)).eval()
    case.load(unet, name)
    return unet


def build_denoiser(case: Case, name: str) -> SpatioTemporalUNet:
    """A denoiser with its weights."""
    config = component_config(case, name)
    if not config.get("use_motion_module") or not config.get("use_inflated_groupnorm"):
        raise CaseError(
            f"{case.id}: {name} needs use_motion_module and use_inflated_groupnorm, as the released model has them"
        )
    levels = [2**i for i in range(len(config["block_out_channels"]))]
    if sorted(config.get("motion_module_resolutions", levels)) != levels or config.get("motion_module_decoder_only"):
        raise CaseError(f"{case.id}: {name} must have motion modules at every level, down and up")
    settings = motion_settings(case, config.get("motion_module_kwargs", {}))
    in_middle = bool(config.get("motion_module_mid_block"))
    unet = SpatioTemporalUNet(**film_config(config, motion_in_middle=in_middle, **settings)).eval()
    case.load(unet, name, MOTION_KEYS)
    return unet


def motion_settings(case: Case, config: Mapping[str, Any]) -> dict[str, Any]:
    """A motion module's configuration in our terms."""
    kinds = tuple(config.get("attention_block_types", ("Temporal_Self", "Temporal_Self")))
    if kinds != ("Temporal_Self", "Temporal_Self") or config.get("temporal_attention_dim_div", 1) != 1:
        raise CaseError(f"{case.id}: motion modules have two Temporal_Self attentions of full width; got {kinds}")
    if not config.get("temporal_position_encoding", False):
        raise CaseError(f"{case.id}: motion modules have positions; temporal_position_encoding is off")
    return {
        "motion_heads": config.get("num_attention_heads", 8),
        "num_positions": config.get("temporal_position_encoding_max_len", 24),
    }


# --- films ------------------------------------------------------------------------------------------------------------


def film(case: Case, pipe: Any, poses: Any, **options: Any) -> dict[str, Tensor]:
    """Call the pipeline; keep the latents after every step and the denoiser's first output."""
    if case.scalars.get("eta", 0.0) != 0.0 or case.scalars.get("context_batch_size", 1) != 1:
        raise CaseError(f"{case.id}: eta must be 0 and context_batch_size 1")
    latents = case.input("latents")
    kept: dict[str, Tensor] = {}
    num_steps = case.scalar("steps")

    def keep(_pipe: Any, step: int, _t: Tensor, tensors: dict[str, Tensor]) -> None:
        kept[f"latents_after_step_{step}" if step < num_steps - 1 else "latents_final"] = tensors["latents"]

    def keep_first(_module: nn.Module, _args: Any, output: Any) -> None:
        kept.setdefault("unet_call_0", output[0])

    hook = pipe.unet.register_forward_hook(keep_first)
    try:
        pipe(
            reference=shown(case),
            poses=poses,
            width=latents.shape[-1] * pipe.vae_scale_factor,
            height=latents.shape[-2] * pipe.vae_scale_factor,
            num_inference_steps=num_steps,
            guidance_scale=case.scalar("guidance_scale"),
            guidance_rescale=case.scalars.get("guidance_rescale", 0.0),
            num_films=latents.shape[0],
            windows=Windows(
                size=case.scalars.get("context_frames", 24),
                overlap=case.scalars.get("context_overlap", 4),
                stride=case.scalars.get("context_stride", 1),
                published=True,
            ),
            latents=latents,
            output_type="latent",
            callback_on_step_end=keep,
            **options,
        )
    finally:
        hook.remove()
    return kept


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


def guide(guider: PoseGuider, pictures: Tensor) -> Tensor:
    """Features (b, width, f, h, w) of pictures (b, 3, f, height, width)."""
    return unfold(guider(fold(pictures)), pictures.shape[2])


def motion_names(case: Case) -> dict[str, str]:
    """Modules of the denoiser whose outputs the case expects, and their names there."""
    names: dict[str, str] = {}
    for name in case.expected:
        if match := re.match(r"mm_(?:(down|up)(\d+)|mid)_(\d+)", name):
            block = f"{match[1]}_blocks.{match[2]}" if match[1] else "mid_block"
            names[f"{block}.motion_modules.{match[3]}"] = match[0]
    return names


def site_of(case: Case, name: str) -> str:
    """Our site of a bank entry of the re-enactment code."""
    match = BLOCK.fullmatch(name.removeprefix("bank."))
    if match is None:
        raise CaseError(f"{case.id}: {name!r} names no transformer block, as in bank.MidBlock_0_..._TransformerBlock")
    place, block, layer = match[2].lower(), match[3], match[4]
    where = f"mid_block.attentions.{block}" if place == "mid" else f"{place}_blocks.{block}.attentions.{layer}"
    return f"{where}.transformer_blocks.{match[5] or 0}.attn1"


RUNNERS: Mapping[str, Runner] = {
    "pose": run_pose,
    "motion": run_motion,
    "step": run_step,
    "sample": run_sample,
    "reenact": run_reenact,
    "context": run_context,
    "train": run_train,
}
