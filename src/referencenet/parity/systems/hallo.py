"""Runs the golden cases of Hallo: small networks, masks, blocks, one step, clips through the pipeline, and losses.

All networks are built by the functions that published files are read with, and filled through the same key maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import FrozenDict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Wav2Vec2Config, Wav2Vec2Model

from referencenet.links.attach import attach, write
from referencenet.methods.hallo import SPEC, HalloPipeline
from referencenet.networks.audio_attention import Heard, Held
from referencenet.networks.audio_unet import AudioUNet
from referencenet.networks.layout import film_config
from referencenet.networks.neighbourhood import neighbours
from referencenet.networks.pose_guider import PoseGuider
from referencenet.networks.projected_tokens import AudioProjection, FaceProjection
from referencenet.parity.cases import Case
from referencenet.parity.record import (
    Produced,
    Runner,
    each_output,
    fold,
    unfold,
)
from referencenet.parity.system import Network, System, config_of, scheduler_of
from referencenet.parity.systems.hallo_blocks import REGIONS, masks_of, motion_by_pass, plan_of, portraits, run_blocks
from referencenet.pipelines.spec import Seat, Shown
from referencenet.pipelines.talking import FACE, LOCATED, MASKS, NO_FACE, Located, contexts_of
from referencenet.preprocess.face_outline import LIPS, OVAL
from referencenet.preprocess.face_regions import FaceRegions, bounds, expanded
from referencenet.preprocess.speech import SpeechFeatures
from referencenet.training.recipes.hallo.recipe import HalloRecipe

AUDIO_PROJECTION = ("seq_len", "blocks", "channels", "intermediate_dim", "output_dim", "context_tokens")
FACE_PROJECTION = ("clip_embeddings_dim", "cross_attention_dim", "clip_extra_context_tokens")

SYSTEM = System(
    HalloPipeline,
    {
        "reference_unet": Network("reference_unet"),
        "unet": Network(
            "denoising_unet",
            build=lambda config: AudioUNet(
                audio_cross_attention_dim=config["audio_attention_dim"], **film_config(config)
            ),
        ),
        "face_locator": Network("face_locator", build=lambda config: PoseGuider(**config)),
        "face_projection": Network(
            "imageproj", build=lambda config: FaceProjection(*(config[name] for name in FACE_PROJECTION))
        ),
        "audio_projection": Network(
            "audioproj", build=lambda config: AudioProjection(*(config[name] for name in AUDIO_PROJECTION))
        ),
    },
)

AUDIO = "mid_block.audio_modules.0"
"""The middle's audio layer, as the cases call it."""


# --- small networks, masks, losses ------------------------------------------------------------------------------------


@torch.no_grad()
def run_modules(case: Case) -> Produced:
    """Locator, projections, windows, schedules and losses."""
    projection = SYSTEM.network(case, "face_projection")
    speech, plain = (heard(case, multiple) for multiple in (case.scalar("clip_length"), 1))
    features = speech.of(range(len(speech)))[:, 1:]
    windows = features[neighbours(0, len(features), 5, len(features))]
    outputs: dict[str, Tensor] = {
        "face_locator": unfold(SYSTEM.network(case, "face_locator")(fold(case.input("face_mask_image"))), 2),
        "imageproj.tokens": projection(case.input("face_emb")),
        "imageproj.tokens_zero": projection(torch.zeros(1, case.input("face_emb").shape[1])),
        "audio.input_values": torch.from_numpy((speech.samples[:64] - speech.mean) / speech.deviation),
        "audio.embedding": features,
        "audio.embedding_unpadded": plain.of(range(len(plain)))[:, 1:],
        "audio.windows": windows,
        "audioproj.tokens": SYSTEM.network(case, "audio_projection")(windows).unsqueeze(0),
    }
    scheduler, training = SPEC.scheduler(), HalloRecipe.stages["image"].loss().scheduler
    scheduler.set_timesteps(40)
    outputs |= {
        "scheduler.timesteps40": scheduler.timesteps.float(),
        "scheduler.alphas_cumprod_linear": scheduler.alphas_cumprod,
        "scheduler.alphas_cumprod_scaled_linear": training.alphas_cumprod,
    }
    numbers = {name: case.scalar(name) for name in ("noise_offset", "snr_gamma")}
    loss: Any = replace(HalloRecipe.stages["image"].loss(), **numbers)
    timesteps, latents = torch.tensor(case.scalar("train_timesteps")), case.input("train.latents")
    noise = loss.offset(case.input("train.noise"), case.input("train.offset"))
    target, predicted = loss.target(latents, noise, timesteps), case.input("train.prediction")
    outputs |= {
        "train.noisy": loss.noisy(latents, noise, timesteps),
        "train.target": target,
        "train.snr_plus_one": loss.snr(timesteps) + 1,
        "train.weights": loss.weights(timesteps),
        "train.losses": torch.stack([
            loss(predicted, target, timesteps), loss.reduced_first(predicted, target, timesteps)
        ]),
    }  # fmt: skip
    return Produced(outputs, {})


def heard(case: Case, multiple: int) -> SpeechFeatures:
    """The case's sound by its speech model, with silence up to a multiple of so many frames."""
    model = Wav2Vec2Model(Wav2Vec2Config(**config_of(case, "wav2vec"))).eval()
    case.load(model, "wav2vec")
    wave = case.scalar("waveform_scale") * case.input("waveform").numpy()
    return SpeechFeatures(model, wave, rate=case.scalar("fps"), multiple=multiple)


def run_masks(case: Case) -> Produced:
    """Rectangles, masks and their pyramid; and those of a film, as in training."""
    size = width, height = case.scalar("width"), case.scalar("height")
    given = case.input("landmarks").double().numpy()
    points = np.array([width, height]) * (np.array([0.30, 0.22]) + np.array([0.42, 0.55]) * given)
    lips = list(LIPS)
    points[lips] = np.array([width, height]) * (np.array([0.42, 0.58]) + np.array([0.17, 0.09]) * given[lips])
    ratios = (case.scalar("face_expand_ratio"), case.scalar("lip_expand_ratio"))
    face, lip = (expanded(bounds(points, which), size, by) for which, by in zip((OVAL, LIPS), ratios, strict=True))
    regions = FaceRegions.of(points, size, face_expand=ratios[0], lip_expand=ratios[1])
    film = [points + np.array(shift) for shift in ((0, 0), (6.4, -3.2), (-4.7, 5.5))]
    trained = FaceRegions.of_film(film, size)
    sides = (64, 32, 16, 8)
    levels = regions.pyramid([(side, side) for side in sides]).split([side**2 for side in sides], dim=1)
    outputs = {
        "face_rect": torch.tensor(face),
        "lip_rect": torch.tensor(lip),
        "sep_lip": torch.from_numpy(regions.lip),
        "sep_face": torch.from_numpy(regions.face),
        "sep_background": torch.from_numpy(regions.pose),
        "train.face_rect": bounds_of(trained.place),
        "train.sep_face": torch.from_numpy(trained.face),
    }
    for level, (side, masks) in enumerate(zip(sides, levels, strict=True)):
        outputs |= {f"pyramid.{name}.{level}": masks[i].view(side, side) for i, name in enumerate(REGIONS)}
    left = {
        "face_mask_blur": "seen in sep_face and sep_lip, which are made of it",
        "train.lip_rect": "seen in train.sep_face, which is made of it",
    }
    return Produced({name: value.float() for name, value in outputs.items()}, left)


# --- blocks and a step ------------------------------------------------------------------------------------------------


@torch.no_grad()
def run_step(case: Case) -> Produced:
    """The write pass and a denoising pass, without guidance and with it, as published."""
    reference_unet, unet, t = (
        SYSTEM.network(case, "reference_unet"),
        SYSTEM.network(case, "unet"),
        case.scalar("timestep"),
    )
    nobody, face, latents = (case.input(name) for name in ("face_tokens_uncond", "face_tokens", "latents"))
    features = SYSTEM.network(case, "face_locator")(case.input("face_mask_image"))
    audio, images = Held(case.input("audio_tokens").flatten(0, 1)), case.input("ref_latents")
    layer = unet.get_submodule("mid_block.motion_modules.0")
    modules = {"mid_block.attentions.0": "mid_block.attentions.0", "mid_block.motion_modules.0.audio": AUDIO}
    outputs: dict[str, Tensor] = {}
    for name, scale in (("nocfg", 1.0), ("cfg", 3.5)):
        passes = SPEC.guidance.passes(t, scale)
        count = len(passes)
        contexts = contexts_of(case.scalar("motion_frames"), guided=count > 1, tiled=True)
        bank = write(
            reference_unet, torch.cat([images] * count), timestep=case.scalar("reference_timestep"),
            encoder_hidden_states=torch.cat([(nobody, face)[i] for each in contexts for i in each]),
        )  # fmt: skip
        motion, locator, seat, kept = motion_by_pass(bank, count), Located("locator"), Seat(), dict[str, Tensor]()
        seat.value = torch.cat([torch.zeros_like(features), features][-count:])
        with (
            attach(unet, [SPEC.link]) as link,
            link.reading(portraits(bank, count), plan=plan_of(passes)),
            locator.hooks(unet, seat),
            each_output(unet, modules, kept),
        ):
            for ending, weights in (("noise_pred", "motion_scale"), ("noise_pred_scaled", "motion_scale_b"))[
                : 3 - count
            ]:
                heard = Heard(tokens=[None, audio][-count:], masks=masks_of(case), weights=case.scalar(weights))
                told = {"face": [Held(nobody), Held(face)][-count:], "heard": heard, "motion": motion}
                outputs[f"{name}.{ending}"] = unet(torch.cat([latents] * count), t, **told).sample
        frames = latents.shape[2]
        heard_frames = unfold(kept[AUDIO], frames)
        before = [by_site[layer.site].transpose(2, 3).unflatten(3, heard_frames.shape[3:]) for by_site in motion]  # pyright: ignore
        clip = torch.cat([torch.cat(before).transpose(1, 2), heard_frames], dim=2)
        outputs[f"{name}.mid_block.attentions.0"] = unfold(kept["mid_block.attentions.0"], frames)
        outputs[f"{name}.{AUDIO}"] = heard_frames
        outputs[f"{name}.mid_block.motion_modules.0"] = unfold(
            layer(fold(clip), num_frames=clip.shape[2]), clip.shape[2]
        )
        banked = {f"{name}.bank.{site.removesuffix('.attn1')}": hidden for site, hidden in bank.hidden.items()}
        outputs |= banked
    return Produced({name: outputs[name] for name in case.expected}, {})


# --- clips ------------------------------------------------------------------------------------------------------------


class ToyAutoencoder(nn.Module):
    """The cases' autoencoder: means of 8 x 8 pixels, and a tenth of the latents eight times as large."""

    dtype, device = torch.float32, torch.device("cpu")
    config = FrozenDict(scaling_factor=0.18215, block_out_channels=(1,) * 4)

    def encode(self, pixels: Tensor) -> Any:
        """(r, 3, H, W) to (r, 4, h, w)."""
        pooled = F.avg_pool2d(pixels, 8)
        return SimpleNamespace(latents=torch.cat([pooled, pooled.mean(dim=1, keepdim=True)], dim=1))

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:  # noqa: ARG002 - as diffusers calls it
        """(r, 4, h, w) to (r, 3, H, W)."""
        return (0.1 * F.interpolate(latents[:, :3], scale_factor=8),)


@torch.no_grad()
def run_sample(case: Case) -> Produced:
    """Two clips through the pipeline's stream; and with a bank rounded to half precision."""
    pipe = SYSTEM.pipe(
        case,
        vae=ToyAutoencoder(),
        scheduler=scheduler_of(case),
        motion_frames=case.scalar("motion_frames"),
        clip_frames=case.scalar("frames_per_clip"),
        tiled=True,
    )
    outputs = film(case, pipe)
    # rounding enlarges differences of 1e-7 to its own size, so the second clip begins from the case's first one
    first = case.expected["clip0.latents_final_half_bank"]
    behind = {
        "clips": 1,
        "motion": pipe.decode(first[:, :, -case.scalar("motion_frames") :], "pt"),
        "generators": [torch.Generator().get_state()],
    }
    rounded = film(case, pipe, half_precision_bank=True) | film(case, pipe, half_precision_bank=True, state=behind)
    outputs |= {f"{name}_half_bank": value for name, value in rounded.items() if name.endswith("latents_final")}
    size, features = case.scalar("frames_per_clip"), case.input("audio_embedding")
    for k in range(case.scalar("clips")):
        tokens = pipe.audio_projection(features[neighbours(k * size, (k + 1) * size, 5, len(features))])
        outputs[f"clip{k}.audio_tokens"] = tokens[None, :1]
    return Produced(outputs, {})


def film(case: Case, pipe: HalloPipeline, **options: Any) -> dict[str, Tensor]:
    """Stream the clips of a case; keep latents and pooled pictures."""
    face = case.input("face_emb")
    tokens, none = pipe.face_projection(torch.cat([face, torch.zeros_like(face)])).split(1)
    latents = 0.18215 * pipe.vae.encode(case.input("source_image")[None] * 2 - 1).latents
    masks = torch.cat(
        [torch.cat([each for each in level[:, 0]]).view(3, -1) for level in masks_of(case).values()], dim=1
    )
    kept = {FACE: tokens, NO_FACE: none, LOCATED: pipe.face_locator(case.input("face_mask_image")), MASKS: masks}
    steps, clips, pixels = case.scalar("num_inference_steps"), case.scalar("clips"), case.scalar("pixels")
    clips_done = options.get("state", {}).get("clips", 0)
    seen: list[Tensor] = []
    stream = pipe.stream(
        Shown(latents=latents, context=tokens, kept=kept),
        case.input("audio_embedding"),
        width=pixels,
        height=pixels,
        num_inference_steps=steps,
        guidance_scale=case.scalar("guidance_scale"),
        latents=torch.cat([case.input(f"latents_{k}") for k in range(clips)], dim=2),
        callback_on_step_end=lambda _pipe, _step, _t, tensors: seen.append(tensors["latents"]),
        **options,
    )
    found: dict[str, Tensor] = {}
    for k, (frames, _) in enumerate(stream, start=clips_done):
        found[f"clip{k}.video_pooled"] = F.avg_pool2d(frames, 8).transpose(0, 1).unsqueeze(0)
        found[f"clip{k}.latents_step0"], found[f"clip{k}.latents_final"] = seen[-steps], seen[-1]
    return found


# --- parts ------------------------------------------------------------------------------------------------------------


def bounds_of(mask: np.ndarray) -> Tensor:
    """Left, right, top and bottom of what is white."""
    rows, columns = np.nonzero(mask)
    return torch.tensor([columns.min(), columns.max() + 1, rows.min(), rows.max() + 1])


RUNNERS: Mapping[str, Runner] = {
    "modules": run_modules,
    "masks": run_masks,
    "blocks": run_blocks,
    "step": run_step,
    "sample": run_sample,
}
