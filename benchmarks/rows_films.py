"""Rows of `trained_links` for AniPortrait, MagicPose, MagicAnimate and DiffPortrait3D: a step of one window.

It is any but a film's first: what is made once per film is there before, ours by a call that stands between two steps.
Letters: f frames, (h, w) latents, (H, W) pixels, c channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import measuring
import published_animate_anyone
import published_aniportrait
import published_diffportrait3d
import published_magic_animate
import published_magicpose
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from published_parts import blocks, ended, features, hooked, stop
from steps import TIMESTEP, Paths, Place, Standing, product_flops, projection_flops, written
from torch import Tensor

from referencenet.methods.aniportrait import PUBLISHED as ANIPORTRAIT_FILES
from referencenet.methods.aniportrait import AniPortraitPipeline
from referencenet.methods.diffportrait3d import DiffPortrait3DPipeline
from referencenet.methods.magic_animate import PUBLISHED as MAGIC_ANIMATE_FILES
from referencenet.methods.magic_animate import MagicAnimatePipeline
from referencenet.methods.magicpose import MagicPosePipeline
from referencenet.networks.landmark_guider import LandmarkGuider
from referencenet.networks.layout import SD15_UNET, film_config
from referencenet.networks.motion import SpatioTemporalUNet
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.networks.stable_diffusion import build_controlnet
from referencenet.networks.views import ViewUNet
from referencenet.pipelines.encoders import IMAGE_TOKEN
from referencenet.pipelines.prediction import Call
from referencenet.pipelines.spec import Canvas, Shown

NARROW: Mapping[str, Any] = SD15_UNET | {
    "block_out_channels": (64, 128, 256, 256),
    "cross_attention_dim": 160,
    "attention_head_dim": 2,
}
"""Stable Diffusion 1.5's UNet at a fifth of its width; two heads of 32 to 128 channels for eight of 40 to 160."""

NOTHING: Any = None
"""In the place of what reads and makes pictures, and of texts."""


def canvas_of(latents: Tensor) -> Canvas:
    """That of latents (1, 4, f, h, w)."""
    return Canvas(width=8 * latents.shape[4], height=8 * latents.shape[3], frames=latents.shape[2])


def aniportrait(place: Place) -> Paths:
    """AniPortrait: a guided step of a window of 6 frames of 256 x 256 (16 of 512 x 512), its drawings guided before."""
    if place.full:
        config, side, frames = SD15_UNET, 64, 16
        unets = [ANIPORTRAIT_FILES.build["unet"](config) for _ in range(2)]
        guider = LandmarkGuider(320)
    else:
        config, side, frames = NARROW, 32, 6
        unets = [SpatioTemporalUNet(**film_config(config, motion_heads=2)) for _ in range(2)]
        guider = LandmarkGuider(64, heads=4, head_dim=72)
    ours, unet = (place.network("aniportrait", "unet", network) for network in unets)
    guider = place.network("aniportrait", "pose_guider", guider)
    reference_unet = place.network("aniportrait", "reference_unet", ANIPORTRAIT_FILES.build["reference_unet"](config))

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("aniportrait", name, *shape)

    reference, token = draw("reference", 1, 4, side, side), draw("token", 1, 1, config["cross_attention_dim"])
    latents = draw("latents", 1, 4, frames, side, side)
    drawings = draw("drawings", frames, 3, 8 * side, 8 * side).sigmoid()
    given = {"drawings": drawings * 2 - 1, "latents": latents, "timestep": TIMESTEP, "token": token}
    pipe = AniPortraitPipeline(
        NOTHING, NOTHING, NOTHING, reference_unet, ours, guider, DDIMScheduler(), published_norm=True
    )
    with torch.no_grad():
        bank = pipe.bank_of(Shown(latents=reference, context=token, kept={IMAGE_TOKEN: token}), 0)
        published_bank = published_animate_anyone.write(reference_unet, reference, token)
    call = Call(
        canvas=canvas_of(latents),
        given={"poses": lambda start, stop: [drawings[start:stop]]},
        guidance=pipe.spec.guidance,
        bank=bank,
    )
    standing = Standing(pipe, call, frames)
    standing.step(latents, TIMESTEP)

    def ideal() -> int:
        """The denoiser plainly, and its products with one half's frames: features, keys and values are there."""
        rows, contexts = latents.repeat(2, 1, 1, 1, 1), token.repeat(2, 1, 1)
        count = measuring.flops(lambda: unet(rows, TIMESTEP, contexts, return_dict=False))
        return count + sum(frames * product_flops(feature, feature) for feature in published_bank)

    return Paths(
        published=lambda: published_aniportrait.step(unet, guider, published_bank, given, pipe.spec.scale),
        ours=lambda: standing.step(latents, TIMESTEP),
        ideal_flops=ideal,
    )


def controlled(controlnet: Any, latents: Tensor, context: Tensor, pictures: Tensor) -> int:
    """FLOPs of a ControlNet on latents (r, 4, h, w), without the embedding of its pictures (r, 3, H, W)."""
    contexts = context.repeat(len(latents), 1, 1)
    whole = measuring.flops(lambda: controlnet(latents, TIMESTEP, contexts, controlnet_cond=pictures))
    return whole - measuring.flops(lambda: controlnet.controlnet_cond_embedding(pictures))


def magicpose(place: Place) -> Paths:
    """MagicPose: a guided step of 4 poses of 256 x 256 (8 of 512 x 512), embedded before; the reference is written."""
    config, side, frames = (SD15_UNET, 64, 8) if place.full else (NARROW, 32, 4)

    def network(name: str, module: torch.nn.Module) -> Any:
        return place.network("magicpose", name, module)

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("magicpose", name, *shape)

    ours, unet = (network("unet", UNet2DConditionModel(**config)) for _ in range(2))
    reference_unet = network("reference_unet", ReferenceUNet(**config))
    controlnet: ControlNetModel = network("controlnet", build_controlnet({"unet": config}))
    given: dict[str, Any] = {
        "reference": draw("reference", 1, 4, side, side),
        "context": draw("context", 1, 77, config["cross_attention_dim"]),
        "timestep": TIMESTEP,
        "poses": draw("poses", frames, 3, 8 * side, 8 * side).sigmoid(),
        "latents": draw("latents", 1, 4, frames, side, side),
    }
    latents, context = given["latents"], given["context"]
    pipe = MagicPosePipeline(NOTHING, NOTHING, NOTHING, reference_unet, ours, controlnet, NOTHING)
    call = Call(
        canvas=canvas_of(latents),
        given={"prompt": (context, context), "poses": lambda start, stop: [given["poses"][start:stop]]},
        guidance=pipe.spec.guidance,
        shown=Shown(latents=given["reference"], context=context),
    )
    standing = Standing(pipe, call, frames, window=1)
    standing.step(latents, TIMESTEP)

    def ideal() -> int:
        """Denoiser twice and ControlNet once per pose; one row written, projected, and read by one half's poses."""
        folded = latents.transpose(1, 2).flatten(0, 1)
        rows, contexts = folded.repeat(2, 1, 1, 1), context.repeat(2 * frames, 1, 1)
        count = measuring.flops(lambda: unet(rows, TIMESTEP, contexts, return_dict=False))
        count += controlled(controlnet, folded, context, given["poses"])
        count += written(reference_unet, given["reference"], TIMESTEP, context)
        bank = features(
            lambda: reference_unet(given["reference"], TIMESTEP, encoder_hidden_states=context), blocks(reference_unet)
        )
        return count + sum(projection_flops(f) + frames * product_flops(f, f) for f in bank)

    return Paths(
        published=lambda: published_magicpose.step(unet, reference_unet, controlnet, given, pipe.spec.scale),
        ours=lambda: standing.step(latents, TIMESTEP),
        ideal_flops=ideal,
    )


def magic_animate(place: Place) -> Paths:
    """MagicAnimate: a guided step of a window of 6 frames of 256 x 256 (16 of 512 x 512), embedded before."""
    config, side, frames = (SD15_UNET, 64, 16) if place.full else (NARROW, 32, 6)

    def network(name: str, module: torch.nn.Module) -> Any:
        return place.network("magic_animate", name, module)

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("magic_animate", name, *shape)

    def build() -> SpatioTemporalUNet:
        settings = film_config(config, num_positions=24, motion_heads=8 if place.full else 2, motion_in_middle=False)
        return SpatioTemporalUNet(**settings, resnet_norm="clip")

    ours, unet = (network("unet", build()) for _ in range(2))
    reference_unet = network("reference_unet", MAGIC_ANIMATE_FILES.build["reference_unet"](config))
    controlnet: ControlNetModel = network("controlnet", build_controlnet({"unet": config}))
    given: dict[str, Any] = {
        "reference": draw("reference", 1, 4, side, side),
        "context": draw("context", 1, 77, config["cross_attention_dim"]),
        "timestep": TIMESTEP,
        "drawings": draw("drawings", frames, 3, 8 * side, 8 * side).sigmoid(),
        "latents": draw("latents", 1, 4, frames, side, side),
    }
    latents, context = given["latents"], given["context"]
    pipe = MagicAnimatePipeline(NOTHING, NOTHING, NOTHING, reference_unet, ours, controlnet, NOTHING)
    drawings = {"poses": lambda start, stop: [given["drawings"][start:stop]], "poses_scale": 1.0}
    call = Call(
        canvas=canvas_of(latents),
        given={"prompt": (context, context), **drawings},
        guidance=pipe.spec.guidance,
        shown=Shown(latents=given["reference"], context=context),
    )
    standing = Standing(pipe, call, frames)
    standing.step(latents, TIMESTEP)

    def ideal() -> int:
        """Down path once, the rest for both halves, ControlNet once; one row written, projected, read by one half."""

        def plain() -> Any:
            return unet(latents, TIMESTEP, context, return_dict=False)

        whole = measuring.flops(plain)
        with hooked(unet.mid_block.register_forward_pre_hook(stop)):
            down = measuring.flops(lambda: ended(plain))
        count = down + 2 * (whole - down)
        count += controlled(controlnet, latents.transpose(1, 2).flatten(0, 1), context, given["drawings"])
        count += written(reference_unet, given["reference"], TIMESTEP, context)
        bank = features(
            lambda: reference_unet(given["reference"], TIMESTEP, encoder_hidden_states=context),
            published_magic_animate.linked(reference_unet),
        )
        return count + sum(projection_flops(f) + frames * product_flops(f, f) for f in bank)

    return Paths(
        published=lambda: published_magic_animate.step(unet, reference_unet, controlnet, given, pipe.spec.scale),
        ours=lambda: standing.step(latents, TIMESTEP),
        ideal_flops=ideal,
    )


def diffportrait3d(place: Place) -> Paths:
    """DiffPortrait3D: a guided step of 4 views of 256 x 256 (8 of 512 x 512), embedded before; written in it."""
    config, side, views = (SD15_UNET, 64, 8) if place.full else (NARROW, 32, 4)

    def network(name: str, module: torch.nn.Module) -> Any:
        return place.network("diffportrait3d", name, module)

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("diffportrait3d", name, *shape)

    settings = film_config(config, motion_heads=8 if place.full else 2)
    ours, unet = (network("unet", ViewUNet(**settings)) for _ in range(2))
    reference_unet = network("reference_unet", ReferenceUNet(**config))
    controlnet: ControlNetModel = network("controlnet", build_controlnet({"unet": config}))
    given: dict[str, Any] = {
        "reference": draw("reference", 1, 4, side, side),
        "context": draw("context", 1, 77, config["cross_attention_dim"]),
        "timestep": TIMESTEP,
        "cameras": draw("cameras", views, 3, 8 * side, 8 * side).sigmoid(),
        "latents": draw("latents", 1, 4, views, side, side),
    }
    latents, context = given["latents"], given["context"]
    pipe = DiffPortrait3DPipeline(NOTHING, NOTHING, NOTHING, reference_unet, ours, controlnet, NOTHING)
    told = {"cameras": lambda start, stop: [given["cameras"][start:stop]], "middle": False}
    call = Call(
        canvas=canvas_of(latents),
        given={"prompt": (context, context), **told},
        guidance=pipe.spec.guidance,
        shown=Shown(latents=given["reference"], context=context),
    )
    standing = Standing(pipe, call, views)
    standing.step(latents, TIMESTEP)

    def ideal() -> int:
        """Denoiser with and without its middle view module, ControlNet once; one row written, projected and read."""
        passes = [[False], [True]]
        count = sum(
            measuring.flops(lambda: unet(latents, TIMESTEP, context, middle=middle, return_dict=False))  # noqa: B023
            for middle in passes
        )
        count += controlled(controlnet, latents.transpose(1, 2).flatten(0, 1), context, given["cameras"])
        count += written(reference_unet, given["reference"], TIMESTEP, context)
        bank = features(
            lambda: reference_unet(given["reference"], TIMESTEP, encoder_hidden_states=context), blocks(reference_unet)
        )
        return count + sum(projection_flops(f) + views * product_flops(f, f) for f in bank)

    return Paths(
        published=lambda: published_diffportrait3d.step(unet, reference_unet, controlnet, given, pipe.spec.scale),
        ours=lambda: standing.step(latents, TIMESTEP),
        ideal_flops=ideal,
    )
