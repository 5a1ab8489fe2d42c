"""Runs the golden cases of AniPortrait's Lmk2Video: drawings, the pose guider, one step, films and the training loss.

All networks are built by the functions that published files are read with, and filled through the same key maps.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from referencenet.checkpoints.motion_keys import MOTION_KEYS
from referencenet.links.attach import attach, write
from referencenet.methods.aniportrait import PUBLISHED, SPEC, AniPortraitPipeline
from referencenet.networks.landmark_guider import LandmarkGuider
from referencenet.networks.layout import film_config, picture_config
from referencenet.networks.motion import SpatioTemporalUNet
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.record import (
    Produced,
    Runner,
    assemble,
    build_scheduler,
    component_config,
    each_output,
    fold,
    unfold,
)
from referencenet.parity.systems.aniportrait_speech import SPEECH_RUNNERS
from referencenet.pipelines.conditions import AfterBlocks
from referencenet.pipelines.encoders import IMAGE_TOKEN
from referencenet.pipelines.passes import reading_plan
from referencenet.pipelines.spec import Seat, Shown
from referencenet.preprocess.face_geometry import perspective, pose_matrices, poses_of, projected, smoothed
from referencenet.preprocess.face_mesh import draw_face_mesh
from referencenet.sampling.windows import Windows
from referencenet.training.velocity_loss import VelocityLoss

OUTPUT_NOTE = "plain pass: our own write pass stops after its last site"


# --- the kinds --------------------------------------------------------------------------------------------------------


def run_landmarks(case: Case) -> Produced:
    """Head poses, projection, smoothing and drawings."""
    points = case.input("points").double().numpy() * 5
    poses = case.input("pose").double().numpy() * np.array([8, 8, 8, 1, 1, 1])
    width, height = case.scalar("image_width"), case.scalar("image_height")
    head = [*case.scalar("trans_mat_euler_degrees"), *case.scalar("trans_mat_translation")]
    trans, matrices = pose_matrices(np.array(head)), pose_matrices(poses)
    seen = projected(points, trans @ matrices, width, height)
    found: dict[str, np.ndarray] = {
        "trans_mat": trans,
        "pose_matrices": matrices,
        "euler_roundtrip": poses_of(matrices),
        "perspective": perspective(width, height),
        "projected": seen,
        "projected_with_trans": seen,
    }
    for name in case.expected:
        if name.startswith("smooth_"):
            found[name] = smoothed(poses, int(name.removeprefix("smooth_")))
    for i, drawing in enumerate(case.scalar("drawings")):
        # "times 0.22 plus 0.5", in float32 as published; then perhaps in pixels, which are made fractions again
        face, size = case.input(f"keypoints_{i}").numpy() * 0.22 + 0.5, (drawing["width"], drawing["height"])
        if not drawing["normalised_keypoints"]:
            face = face * np.array(size) / np.array(size)
        found[f"drawing_{i}"] = draw_face_mesh(face, *size)
    return Produced({name: torch.tensor(value).float() for name, value in found.items()}, {})


@torch.no_grad()
def run_pose_guider(case: Case) -> Produced:
    """The five features: by running statistics, by the frames' own, and of the range of the published scripts."""
    guider = build_guider(case)
    drawings = drawn(case, "pose_image")
    unit, raw = drawings / 255 * 2 - 1, drawings * 2 - 1
    names = {name: f"running_{name}" for name in ("conv_layers_1",)} | {"conv_layers": "running_conv_layers"}
    kept: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {"input_unit": unit, "input_raw255": raw}
    with each_output(guider, {f"{path}.{last(guider, path)}": name for path, name in names.items()}, kept):
        running = guider(unit, published_norm=False)
    outputs |= {"running_cross_attn1": running[1], **kept}
    features = {"running": running, "batch": guider(unit), "batch_raw255": guider(raw)}
    outputs |= {f"{name}_{i}": level for name, levels in features.items() for i, level in enumerate(levels)}
    cropped = {
        name: cropped_like(value, case.expected[name]) for name, value in outputs.items() if name in case.expected
    }
    return Produced(cropped, {})


@torch.no_grad()
def run_step(case: Case) -> Produced:
    """The reference pass and one denoising pass, with guidance if the case has it, with and without drawings."""
    reference_unet, denoiser = build_reference(case), build_denoiser(case)
    latents, clean, token = case.input("latents"), case.input("ref_latents"), case.input("clip_embeds").unsqueeze(1)
    t, t_reference = case.scalar("timestep"), case.scalar("reference_timestep")
    scale = case.scalars.get("guidance_scale") or 1.0  # None: without guidance
    passes = SPEC.guidance.passes(t, scale)
    guided = len(passes) > 1
    context = torch.cat([torch.zeros_like(token), token]) if guided else token
    shown = torch.cat([clean] * len(passes))
    banks = write(reference_unet, shown, timestep=t_reference, encoder_hidden_states=context)
    bank = write(reference_unet, clean, timestep=t_reference, encoder_hidden_states=token)
    outputs: dict[str, Tensor] = {"reference_output": reference_unet(shown, t_reference, context).sample}
    outputs |= {
        name: banks.hidden[f"{name.removeprefix('bank_')}.transformer_blocks.0.attn1"]
        for name in case.expected
        if name.startswith("bank_")
    }
    condition, seat = AfterBlocks("poses"), Seat()
    features = [fold(case.input(f"pose_{i}")) for i in range(5)]
    sample, kept = torch.cat([latents] * len(passes)), dict[str, Tensor]()
    plan = reading_plan(passes, latents.shape[0], bank.rows)
    with attach(denoiser) as link, link.reading(bank, plan=plan):
        with each_output(denoiser, module_names(case, denoiser), kept), condition.hooks(denoiser, seat):
            seat.value = condition.joined([features] * len(passes), 1)
            outputs["model_output"] = denoiser(sample, t, context).sample
        outputs["model_output_without_pose"] = denoiser(sample, t, context).sample
    if guided:
        outputs["guided"] = SPEC.guidance.combine(passes, outputs["model_output"].chunk(2))
    frames = latents.shape[2]
    outputs |= {name: unfold(value[0] if isinstance(value, tuple) else value, frames) for name, value in kept.items()}
    cropped = {
        name: cropped_like(value, case.expected[name]) for name, value in outputs.items() if name in case.expected
    }
    return Produced(cropped, {"reference_output": OUTPUT_NOTE})


@torch.no_grad()
def run_sample(case: Case) -> Produced:
    """A film through the pipeline's call, with the published windows and range, in the three published forms."""
    parts: dict[str, Any] = {
        "reference_unet": build_reference(case),
        "unet": build_denoiser(case),
        "pose_guider": build_guider(case),
        "scheduler": build_scheduler(case),
    }
    outputs = film(case, parts)
    final = f"latents_{case.scalar('steps')}"
    if "final_running_stats" in case.expected:
        outputs["final_running_stats"] = film(case, parts, published_norm=False)[final]
    if "final_bank_float16" in case.expected:
        outputs["final_bank_float16"] = film(case, parts, half_precision_bank=True)[final]
    return Produced(outputs, {})


def run_train(case: Case) -> Produced:
    """The loss of the first stage and its gradients, and the pass whose reference is dropped."""
    reference_unet = build_reference(case)
    denoiser = UNet2DConditionModel(**picture_config(component_config(case, "denoising_unet"))).eval()
    case.load(denoiser, "denoising_unet")
    loss = VelocityLoss(
        scheduler=build_scheduler(case), noise_offset=case.scalar("noise_offset"), snr_gamma=case.scalar("snr_gamma")
    )
    timesteps = torch.tensor(case.scalar("timesteps"))
    latents, token = case.input("latents"), case.input("clip_embeds").unsqueeze(1)
    noise = loss.offset(case.input("noise"), case.input("noise_offset"))
    noisy, target = loss.noisy(latents, noise, timesteps), loss.target(latents, noise, timesteps)
    condition, seat = AfterBlocks("poses"), Seat()
    bank = write(
        reference_unet, case.input("ref_latents"), timestep=torch.zeros_like(timesteps), encoder_hidden_states=token
    )
    with condition.hooks(denoiser, seat):
        seat.value = [fold(case.input(f"pose_{i}")) for i in range(5)]
        unread = unfold(denoiser(fold(noisy), timesteps, token).sample, 1)
        with attach(denoiser) as link, link.reading(bank):
            predicted = unfold(denoiser(fold(noisy), timesteps, token).sample, 1)
    losses = [loss(each, target, timesteps) for each in (predicted, unread)]
    losses[0].backward()
    networks = nn.ModuleDict({"reference_unet": reference_unet, "denoising_unet": denoiser})
    gradients = [networks.get_parameter(name).grad for name in case.scalar("gradnorm_parameters")]
    outputs = {
        "noisy": noisy,
        "target": target,
        "weights": loss.weights(timesteps),
        "model_pred": predicted,
        "model_pred_uncond": unread,
        "loss": torch.stack(losses),
        "gradnorms": torch.stack([torch.zeros(()) if each is None else each.norm() for each in gradients]),
    }
    return Produced({name: value.detach() for name, value in outputs.items()}, {})


# --- networks ---------------------------------------------------------------------------------------------------------


def build_guider(case: Case) -> LandmarkGuider:
    """The pose guider with its weights; a case may set its scale."""
    config = component_config(case, "pose_guider")
    if not config.get("use_ca", True):
        raise CaseError(f"{case.id}: pose_guider needs use_ca, as the released one has its transformers")
    guider = LandmarkGuider(config["noise_latent_channels"]).eval()
    case.load(guider, "pose_guider")
    if "scale" in case.components["pose_guider"].get("overrides", {}):
        guider.scale.data.fill_(2.0)  # "set to 2.0 after filling", in every case
    return guider


def build_reference(case: Case) -> nn.Module:
    """The reference net with its weights."""
    unet = PUBLISHED.build["reference_unet"](component_config(case, "reference_unet")).eval()
    case.load(unet, "reference_unet")
    return unet


def build_denoiser(case: Case) -> SpatioTemporalUNet:
    """The denoiser with its weights."""
    config = component_config(case, "denoising_unet")
    if not config.get("use_motion_module") or not config.get("use_inflated_groupnorm"):
        raise CaseError(f"{case.id}: denoising_unet needs use_motion_module and use_inflated_groupnorm")
    motion = config.get("motion_module_kwargs", {})
    unet = SpatioTemporalUNet(
        **film_config(
            config,
            num_positions=motion.get("temporal_position_encoding_max_len", 24),
            motion_heads=motion.get("num_attention_heads", 8),
            motion_in_middle=bool(config.get("motion_module_mid_block")),
        )
    ).eval()
    case.load(unet, "denoising_unet", MOTION_KEYS)
    return unet


# --- films ------------------------------------------------------------------------------------------------------------


def film(case: Case, parts: Mapping[str, Any], *, published_norm: bool = True, **options: Any) -> dict[str, Tensor]:
    """Call the pipeline; keep the latents after every step."""
    if case.scalars.get("eta", 0.0) != 0.0:
        raise CaseError(f"{case.id}: eta must be 0")
    blank = dict.fromkeys(("vae", "image_encoder", "image_processor"))
    pipe = assemble(AniPortraitPipeline, **blank, **parts, published_norm=published_norm, pose_range="official")
    latents, token = case.input("latents"), case.input("clip_embeds").unsqueeze(1)
    clean = case.input("vae_mean") * 0.18215  # Stable Diffusion's, as the case says
    kept: dict[str, Tensor] = {}

    def keep(_pipe: Any, step: int, _t: Tensor, tensors: dict[str, Tensor]) -> None:
        kept[f"latents_{step + 1}"] = tensors["latents"]

    pipe(
        Shown(latents=clean, context=token, kept={IMAGE_TOKEN: token}),
        drawn(case, "pose_images") / 255,
        width=latents.shape[-1] * pipe.vae_scale_factor,
        height=latents.shape[-2] * pipe.vae_scale_factor,
        num_inference_steps=case.scalar("steps"),
        guidance_scale=case.scalar("guidance_scale"),
        windows=Windows(
            size=case.scalar("context_frames"),
            overlap=case.scalar("context_overlap"),
            stride=case.scalars.get("context_stride", 1),
            published=True,
        ),
        latents=latents,
        output_type="latent",
        callback_on_step_end=keep,
        **options,
    )
    return kept


def drawn(case: Case, name: str) -> Tensor:
    """Seeded pictures (f, H, W, 3) as values from 0 to 255: (f, 3, H, W)."""
    return torch.floor(case.input(name) * 256).clamp(max=255).permute(0, 3, 1, 2).contiguous()


def module_names(case: Case, denoiser: nn.Module) -> dict[str, str]:
    """Modules of the denoiser whose outputs the case expects, and their names there."""
    blocks: Any = denoiser.get_submodule("up_blocks")
    layers = len(blocks[1].attentions) - 1
    names = {
        "conv_in": "conv_in",
        "down_blocks.0.attentions.0": "down0_attn0",
        "down_blocks.0.motion_modules.0": "down0_motion0",
        "mid_block": "mid_block",
        "mid_block.motion_modules.0": "mid_motion0",
        f"up_blocks.1.attentions.{layers}": "up1_attn_last",
        f"up_blocks.3.motion_modules.{layers}": "up3_motion_last",
    }
    return {path: name for path, name in names.items() if name in case.expected}


def last(network: nn.Module, path: str) -> int:
    """Index of the last layer of a sequence."""
    stage: Any = network.get_submodule(path)
    return len(stage) - 1


def cropped_like(value: Tensor, expected: Tensor) -> Tensor:
    """The first part of an output, where a case stores less than all; frames become an axis where it has one."""
    if expected.ndim == 5 and value.ndim == 4:
        value = unfold(value, value.shape[0])
    return value[tuple(slice(size) for size in expected.shape)]


RUNNERS: Mapping[str, Runner] = {
    "landmarks": run_landmarks,
    "pose-guider": run_pose_guider,
    "step": run_step,
    "step-cfg": run_step,
    "sample": run_sample,
    "train": run_train,
    **SPEECH_RUNNERS,
}
