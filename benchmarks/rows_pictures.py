"""Rows of `trained_links` for Parts2Whole, StableGarment and CatVTON: a step behind a call's first one.

What is made once per call is there before, ours by a call that stands between two steps. Letters: (h, w) latents, c
channels.
"""

from __future__ import annotations

from typing import Any

import measuring
import published_parts2whole
import published_stable_garment
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from published_parts import blocks, features
from rows_films import NARROW, NOTHING
from steps import TIMESTEP, Paths, Place, Standing, product_flops, projection_flops, written
from torch import Tensor

from referencenet.methods.catvton import PUBLISHED as CATVTON_FILES
from referencenet.methods.catvton import CatVTONPipeline
from referencenet.methods.parts2whole import PUBLISHED as PARTS2WHOLE_FILES
from referencenet.methods.parts2whole import Parts2WholePipeline
from referencenet.methods.stable_garment import StableGarmentTryOnPipeline
from referencenet.networks.image_prompt import with_image_prompt
from referencenet.networks.layout import SD15_UNET
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.networks.tryon_controlnet import build_controlnet, build_guider
from referencenet.pipelines.controls import Control
from referencenet.pipelines.prediction import Call
from referencenet.pipelines.spec import Canvas, Shown


def parts2whole(place: Place, parts: int) -> Paths:
    """Parts2Whole: a guided step with so many parts, written before; a picture of 256 x 384 (512 x 768)."""
    config, latent_size = (SD15_UNET, (96, 64)) if place.full else (NARROW, (48, 32))

    def network(name: str, build: str) -> Any:
        return place.network("parts2whole", name, PARTS2WHOLE_FILES.build[build](config))

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("parts2whole", name, *shape)

    ours, unet = network("unet", "unet"), network("unet", "unet")
    reference_unet, guider = network("reference_unet", "reference_unet"), network("pose_guider", "pose_guider")
    width = config["cross_attention_dim"]
    latents, shown = draw("latents", 1, 4, *latent_size), draw(f"parts-{parts}", parts, 4, *latent_size)
    labels, texts = draw(f"labels-{parts}", parts, 77, width), draw("texts", 2, 77, width)
    tokens = draw("tokens", 1, 6, width)
    pose = draw("pose", 1, 3, *(8 * side for side in latent_size)).sigmoid()
    pipe = Parts2WholePipeline(
        NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, reference_unet, ours, guider, DDIMScheduler()
    )
    with torch.no_grad():
        bank = pipe.bank_of(Shown(latents=shown, context=labels, kept={"images": tokens}), 0)
        published_bank = published_parts2whole.write(reference_unet, shown, labels, texts[:1])
        given = {
            "pose": guider(pose),
            "latents": latents,
            "timestep": TIMESTEP,
            "context": with_image_prompt(texts, torch.cat([torch.zeros_like(tokens), tokens])),
        }
    call = Call(
        canvas=Canvas(width=8 * latent_size[1], height=8 * latent_size[0]),
        given={"prompt": (texts[1:], texts[:1]), "pose": [pose]},
        guidance=pipe.spec.guidance,
        bank=bank,
    )
    standing = Standing(pipe, call)
    standing.step(latents, TIMESTEP)

    def ideal() -> int:
        """The denoiser plainly, and its products with one half: keys and values are there."""
        rows = latents.repeat(2, 1, 1, 1)
        count = measuring.flops(lambda: unet(rows, TIMESTEP, given["context"], return_dict=False))
        return count + sum(product_flops(f[:, : f.shape[1] // parts], f) for f in published_bank)

    return Paths(
        published=lambda: published_parts2whole.step(unet, published_bank, given, pipe.spec.scale),
        ours=lambda: standing.step(latents, TIMESTEP),
        ideal_flops=ideal,
    )


class OneStep:
    """A schedule that stands at its one step, the first of two: what a ControlNet's window asks, without a tensor."""

    timesteps: Any

    def __init__(self) -> None:
        self.timesteps = self

    def __eq__(self, _other: object) -> Any:
        return self

    def __hash__(self) -> int:
        return 0

    def __len__(self) -> int:
        return 2

    def nonzero(self) -> list[int]:
        """The place of the step."""
        return [0]

    def __getitem__(self, _index: int) -> Any:
        return 0


def stable_garment(place: Place) -> Paths:
    """StableGarment's try-on: written at every step, a ControlNet for both halves; 256 x 384 (768 x 1024)."""
    config, latent_size = (SD15_UNET, (128, 96)) if place.full else (NARROW, (48, 32))

    def network(name: str, module: torch.nn.Module) -> Any:
        return place.network("stable_garment", name, module)

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("stable_garment", name, *shape)

    ours, unet = (network("unet", UNet2DConditionModel(**config)) for _ in range(2))
    reference_unet = network("reference_unet", ReferenceUNet(**config, cut=True))
    controlnet, guider = network("controlnet", build_controlnet(config)), network("guider", build_guider(config))
    texts = draw("texts", 2, 77, config["cross_attention_dim"])
    given: dict[str, Any] = {
        "garment": draw("garment", 1, 4, *latent_size),
        "garment_context": draw("garment_context", 1, 77, config["cross_attention_dim"]),
        "timestep": TIMESTEP,
        "condition": draw("condition", 1, 4, *(8 * side for side in latent_size)).sigmoid(),
        "agnostic": draw("agnostic", 1, 4, *latent_size),
        "latents": draw("latents", 1, 4, *latent_size),
        "contexts": texts,
    }
    latents, scheduler = given["latents"], DDIMScheduler()
    pipe = StableGarmentTryOnPipeline(NOTHING, NOTHING, NOTHING, reference_unet, ours, controlnet, guider, scheduler)
    pipe.scheduler = OneStep()
    call = Call(
        canvas=Canvas(width=8 * latent_size[1], height=8 * latent_size[0]),
        given={
            "prompt": (texts[1:], texts[:1]),
            "control": Control(features=lambda: guider(given["condition"], given["agnostic"])),
        },
        guidance=pipe.spec.guidance,
        shown=Shown(latents=given["garment"], context=given["garment_context"]),
    )
    standing = Standing(pipe, call)
    standing.step(latents, TIMESTEP)

    def ideal() -> int:
        """Denoiser and ControlNet plainly for both halves; one row written, projected, and read by one half."""
        rows = latents.repeat(2, 1, 1, 1)
        count = measuring.flops(lambda: unet(rows, TIMESTEP, texts, return_dict=False))
        embedded = guider(given["condition"], given["agnostic"]).repeat(2, 1, 1, 1)
        count += measuring.flops(lambda: controlnet(rows, TIMESTEP, texts, controlnet_cond=embedded))
        count += written(reference_unet, given["garment"], TIMESTEP, given["garment_context"])
        bank = features(
            lambda: reference_unet(given["garment"], TIMESTEP, encoder_hidden_states=given["garment_context"]),
            blocks(reference_unet),
        )
        return count + sum(projection_flops(f) + product_flops(f, f) for f in bank)

    return Paths(
        published=lambda: published_stable_garment.step(
            unet, reference_unet, controlnet, guider, given, pipe.spec.scale
        ),
        ours=lambda: standing.step(latents, TIMESTEP),
        ideal_flops=ideal,
    )


def catvton(place: Place) -> Paths:
    """CatVTON: a guided step of person above garment; 256 x 384 (768 x 1024) for each of the two.

    The published step computes nothing that could be left out, so that memory alone can be less.
    """
    config, (height, width) = (SD15_UNET, (128, 96)) if place.full else (NARROW, (48, 32))

    def draw(name: str, *shape: int) -> Tensor:
        return place.draw("catvton", name, *shape)

    unet = place.network("catvton", "unet", CATVTON_FILES.build["unet"](config))
    pipe = CatVTONPipeline(NOTHING, unet, DDIMScheduler())
    latents, person = draw("latents", 1, 4, 2 * height, width), draw("person", 1, 4, height, width)
    garment, mask = draw("garment", 1, 4, height, width), draw("mask", 1, 1, height, width).gt(0).to(place.dtype)
    call = Call(
        canvas=Canvas(width=8 * width, height=8 * height),
        given={"garment": (mask, person, garment)},
        guidance=pipe.spec.guidance,
    )
    standing = Standing(pipe, call)
    standing.step(latents, TIMESTEP)
    white = torch.cat([mask, torch.zeros_like(mask)], dim=2)
    below = torch.cat([torch.zeros_like(garment), garment])
    told = torch.cat([white.repeat(2, 1, 1, 1), torch.cat([person.repeat(2, 1, 1, 1), below], dim=2)], dim=1)

    def plain() -> Tensor:
        return unet(torch.cat([latents.repeat(2, 1, 1, 1), told], dim=1), TIMESTEP, None, return_dict=False)[0]

    def published() -> Tensor:
        unconditional, conditional = plain().chunk(2)
        return unconditional + pipe.spec.scale * (conditional - unconditional)

    return Paths(
        published=published,
        ours=lambda: standing.step(latents, TIMESTEP),
        ideal_flops=lambda: measuring.flops(plain),
    )
