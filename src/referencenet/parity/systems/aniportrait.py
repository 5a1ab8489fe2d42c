"""AniPortrait's golden cases (Lmk2Video): drawings, the pose guider, one step, films and the training loss."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from referencenet.links.attach import attach
from referencenet.methods.aniportrait import SPEC, AniPortraitPipeline
from referencenet.networks.landmark_guider import LandmarkGuider
from referencenet.networks.layout import picture_config
from referencenet.parity import kinds
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.kinds import Outputs
from referencenet.parity.record import Runner, fold, observed, unfold
from referencenet.parity.system import PORTRAIT_FILM, Network, System, scheduler_of
from referencenet.parity.systems.aniportrait_speech import SPEECH_RUNNERS
from referencenet.pipelines.conditions import AfterBlocks
from referencenet.pipelines.encoders import IMAGE_TOKEN
from referencenet.pipelines.spec import Once, Seat, Shown
from referencenet.preprocess.face_geometry import perspective, pose_matrices, poses_of, projected, smoothed
from referencenet.preprocess.face_mesh import draw_face_mesh

SCALING = 0.18215  # of Stable Diffusion's latents, as the cases say


def guider_width(case: Case, config: Mapping[str, Any]) -> int:
    """The pose guider's width."""
    if not config.get("use_ca", True):
        raise CaseError(f"{case.id}: pose_guider needs use_ca, as the released one has its transformers")
    return config["noise_latent_channels"]


SYSTEM = System(
    AniPortraitPipeline,
    {**PORTRAIT_FILM, "pose_guider": Network("pose_guider", guider_width, LandmarkGuider)},
)
PICTURES = System(
    AniPortraitPipeline,
    {
        "reference_unet": PORTRAIT_FILM["reference_unet"],
        "unet": Network("denoising_unet", build=lambda config: UNet2DConditionModel(**picture_config(config))),
    },
)
"""The first stage of training, on single frames."""


def scaled(case: Case, guider: Any) -> Any:
    """The pose guider with the scale that the case sets, if it does."""
    if "scale" in case.components["pose_guider"].get("overrides", {}):
        guider.scale.data.fill_(2.0)  # "set to 2.0 after filling", in every case
    return guider


def shown(case: Case, latents: Tensor) -> Shown:
    """What the writer is shown."""
    token = case.input("clip_embeds").unsqueeze(1)
    return Shown(latents=latents, context=token, kept={IMAGE_TOKEN: token})


def pictures(case: Case, name: str) -> Tensor:
    """Seeded drawings (f, H, W, 3) as values from 0 to 255: (f, 3, H, W)."""
    return torch.floor(case.input(name) * 256).clamp(max=255).permute(0, 3, 1, 2).contiguous()


def features(case: Case) -> list[Tensor]:
    """The pose guider's five features, which some cases give, each (b f, width, h, w)."""
    return [fold(case.input(f"pose_{i}")) for i in range(5)]


def landmarks(case: Case) -> dict[str, np.ndarray]:
    """Head poses, projection, smoothing and drawings."""
    points = case.input("points").double().numpy() * 5
    poses = case.input("pose").double().numpy() * np.array([8, 8, 8, 1, 1, 1])
    width, height = case.scalar("image_width"), case.scalar("image_height")
    head = [*case.scalar("trans_mat_euler_degrees"), *case.scalar("trans_mat_translation")]
    trans, matrices = pose_matrices(np.array(head)), pose_matrices(poses)
    found = {
        "trans_mat": trans,
        "pose_matrices": matrices,
        "euler_roundtrip": poses_of(matrices),
        "perspective": perspective(width, height),
        "projected": projected(points, trans @ matrices, width, height),
    }
    found["projected_with_trans"] = found["projected"]
    smooth = {name: int(name.removeprefix("smooth_")) for name in case.expected if name.startswith("smooth_")}
    found |= {name: smoothed(poses, length) for name, length in smooth.items()}
    for i, drawing in enumerate(case.scalar("drawings")):
        # "times 0.22 plus 0.5", in float32 as published; then perhaps in pixels, which are made fractions again
        face, size = case.input(f"keypoints_{i}").numpy() * 0.22 + 0.5, (drawing["width"], drawing["height"])
        if not drawing["normalised_keypoints"]:
            face = face * np.array(size) / np.array(size)
        found[f"drawing_{i}"] = draw_face_mesh(face, *size)
    return found


def pose_guider(case: Case) -> Outputs:
    """The five features: by running statistics, by the frames' own, and of the range of the published scripts."""
    guider, drawings = scaled(case, SYSTEM.network(case, "pose_guider")), pictures(case, "pose_image")
    unit, raw = drawings / 255 * 2 - 1, drawings * 2 - 1
    stages: dict[str, Any] = {path: guider.get_submodule(path) for path in ("conv_layers", "conv_layers_1")}
    watched = {f"{path}.{len(stage) - 1}": f"running_{path}" for path, stage in stages.items()}
    running, outputs = observed(guider, watched, unit, published_norm=False)
    outputs |= {"input_unit": unit, "input_raw255": raw, "running_cross_attn1": running[1]}
    for name, levels in (("running", running), ("batch", guider(unit)), ("batch_raw255", guider(raw))):
        outputs |= {f"{name}_{i}": level for i, level in enumerate(levels)}
    framed = [name for name in outputs if name in case.expected and case.expected[name].ndim == 5]
    return outputs | {name: unfold(outputs[name], len(drawings)) for name in framed}


def step(case: Case) -> Outputs:
    """The reference pass and one prediction, with guidance if the case has it, with and without drawings."""
    pipe, latents = SYSTEM.pipe(case, *PORTRAIT_FILM), case.input("latents")
    t_written, told, t = (
        case.scalar("reference_timestep"),
        shown(case, case.input("ref_latents")),
        case.scalar("timestep"),
    )
    scale = case.scalars.get("guidance_scale") or 1.0  # None: without guidance
    passes, rows = SPEC.guidance.passes(t, scale), told
    if len(passes) > 1:  # the published writer has a row for each half, of one picture
        rows = replace(told.with_blank(), latents=torch.cat([told.latents, told.latents]))
    outputs = kinds.banked(pipe, rows, t_written, "bank_{place}")
    outputs["reference_output"] = pipe.reference_unet(rows.latents, t_written, rows.context).sample
    pipe.guide = lambda _drawings: features(case)  # a case has features in the place of drawings
    blank = torch.zeros(latents.shape[2], 3, 1, 1)
    predict = partial(kinds.predict, pipe, latents, t, told, {"poses": kinds.drawn(blank)}, scale=scale)
    unseen = kinds.Passes(*(replace(each, blind=each.blind | {"poses"}) for each in passes))
    outputs |= predict(raw="model_output_without_pose", guidance=unseen)
    return outputs | predict(raw="model_output", watched=module_names(case, pipe.unet))


def sample(case: Case) -> Outputs:
    """A film with the published windows and range, in the three published forms."""
    pipe = SYSTEM.pipe(case, scheduler=scheduler_of(case), pose_range="official")
    scaled(case, pipe.pose_guider)
    call = partial(pipe, shown(case, case.input("vae_mean") * SCALING), pictures(case, "pose_images") / 255)
    options = {"first": 1, "steps": "steps", "windows": kinds.film_windows(case, case.scalars, pipe.spec)}
    film = partial(kinds.sample, case, pipe, call, "latents_{}", **options)
    outputs = film()
    if "final_bank_float16" in case.expected:
        outputs["final_bank_float16"] = film(half_precision_bank=True)["latents_final"]
    if "final_running_stats" in case.expected:
        pipe.register_to_config(published_norm=False)
        outputs["final_running_stats"] = film()["latents_final"]
    return outputs


@torch.enable_grad()
def train(case: Case) -> Outputs:
    """The loss of the first stage and its gradients, and the pass whose reference is dropped."""
    networks = nn.ModuleDict({row.component: PICTURES.network(case, name) for name, row in PICTURES.networks.items()})
    denoiser, told = networks["denoising_unet"], shown(case, case.input("ref_latents"))
    loss, timesteps, outputs = kinds.velocity(case, "noise_offset")
    condition, seat, noisy = AfterBlocks("poses"), Seat(), fold(outputs["noisy"])
    bank = Once().bank(networks["reference_unet"], told, 0, SPEC.link)
    with condition.hooks(denoiser, seat):
        seat.value = features(case)
        unread = unfold(denoiser(noisy, timesteps, told.context).sample, 1)
        with attach(denoiser, [SPEC.link]) as link, link.reading(bank):
            predicted = unfold(denoiser(noisy, timesteps, told.context).sample, 1)
    losses = [loss(each, outputs["target"], timesteps) for each in (predicted, unread)]
    losses[0].backward()
    gradients = [networks.get_parameter(name).grad for name in case.scalar("gradnorm_parameters")]
    return outputs | {
        "model_pred": predicted,
        "model_pred_uncond": unread,
        "loss": torch.stack(losses),
        "gradnorms": torch.stack([torch.zeros(()) if each is None else each.norm() for each in gradients]),
    }


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


STEP = kinds.runner(step, in_part=True, reference_output=kinds.WRITER_NOTE)

RUNNERS: Mapping[str, Runner] = {
    "landmarks": kinds.runner(landmarks),
    "pose-guider": kinds.runner(pose_guider, in_part=True),
    "step": STEP,
    "step-cfg": STEP,
    "sample": kinds.runner(sample),
    "train": kinds.runner(train),
    **SPEECH_RUNNERS,
}
