"""Tiny diffusers pipelines of every kind: a fraction of a second a call. Their networks: `tiny_networks.py`.

Pipelines are built once per process and copied for each test, so none sees what another did to its weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    AnimateDiffPAGPipeline,
    AnimateDiffPipeline,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPanoramaPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPAGPipeline,
    StableDiffusionXLPipeline,
)
from peft import LoraConfig

from copies import made_once
from referencenet.methods.tiny import tiny_pipeline as make_tiny_pipeline
from tiny_networks import (
    CONTEXT,
    SIZE,
    TOKENS,
    XL,
    base_parts,
    build,
    controlnet,
    depth_estimator,
    fill,
    half_mask,
    image_encoder,
    image_processor,
    ip_adapter_weights,
    latents,
    motion_adapter,
    picture,
    scheduler,
    sd_parts,
    tokenizer,
    unet,
    unet_config,
    xl_parts,
)

__all__ = [
    "CONTEXT",
    "KINDS",
    "SIZE",
    "TOKENS",
    "Tiny",
    "XL",
    "build",
    "diffusers_trailing_ddim",
    "fill",
    "half_mask",
    "image_processor",
    "ip_adapter_weights",
    "latents",
    "picture",
    "refiner",
    "scheduler",
    "tiny",
    "tiny_pipeline",
    "tokenizer",
    "unet",
    "unet_config",
]


@dataclass
class Tiny:
    """A pipeline and the arguments of its plain call."""

    kind: str
    pipe: Any
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def unet(self) -> Any:
        """The pipeline's denoising UNet."""
        return self.pipe.unet

    def __call__(self, *, seed: int = 0, **changes: Any) -> torch.Tensor:
        """Call the pipeline from `seed`; return latents (batch, 4, 8, 8), of films (batch, 4, frames, 8, 8)."""
        arguments = {"generator": torch.Generator().manual_seed(seed), "output_type": "latent"}
        return self.pipe(**(arguments | self.arguments | changes))[0]


def _sd() -> DiffusionPipeline:
    return StableDiffusionPipeline(**sd_parts())


def _sd2() -> DiffusionPipeline:
    return StableDiffusionPipeline(**sd_parts("sd2", scheduler=scheduler(prediction_type="v_prediction")))


def _lora() -> DiffusionPipeline:
    pipe = _sd()
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        pipe.unet.add_adapter(config)
    fill(pipe.unet, 8, only="lora_")
    return pipe


def _ip_adapter() -> DiffusionPipeline:
    parts = sd_parts(image_encoder=image_encoder(), feature_extractor=image_processor())
    pipe = StableDiffusionPipeline(**parts)
    pipe.load_ip_adapter(ip_adapter_weights(pipe.unet), subfolder="", weight_name="", low_cpu_mem_usage=False)
    return pipe


def _animatediff() -> DiffusionPipeline:
    parts = base_parts() | {"unet": unet(), "motion_adapter": motion_adapter()}
    return AnimateDiffPipeline(**parts)


def _depth() -> DiffusionPipeline:
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    parts = {name: part for name, part in sd_parts("depth").items() if name in names}
    estimator = {"depth_estimator": depth_estimator(), "feature_extractor": image_processor()}
    return StableDiffusionDepth2ImgPipeline(**parts, **estimator)


def refiner() -> DiffusionPipeline:
    """Return a fresh tiny SDXL refiner, which has a UNet of its own, one text model and an aesthetic score."""
    parts = xl_parts("refiner", text_encoder=None, tokenizer=None, requires_aesthetics_score=True)
    return StableDiffusionXLImg2ImgPipeline(**parts)


_TEXT = {"prompt": "a knight", "num_inference_steps": 2, "guidance_scale": 7.5}


def _inpaint() -> dict[str, Any]:
    return {"image": picture(11), "mask_image": half_mask("right"), "height": SIZE, "width": SIZE, "strength": 1.0}


def _xl_inpaint() -> dict[str, Any]:
    return _inpaint() | {"strength": 0.99, "num_inference_steps": 3}


KINDS: dict[str, tuple[Callable[[], DiffusionPipeline], Callable[[], dict[str, Any]]]] = {
    "sd": (_sd, dict),
    "sd2": (_sd2, dict),
    "img2img": (
        lambda: StableDiffusionImg2ImgPipeline(**sd_parts()),
        lambda: {"image": picture(10), "strength": 0.7, "num_inference_steps": 3},
    ),
    "inpaint": (lambda: StableDiffusionInpaintPipeline(**sd_parts()), _inpaint),
    "inpaint9": (lambda: StableDiffusionInpaintPipeline(**sd_parts("inpaint9")), _inpaint),
    "controlnet": (
        lambda: StableDiffusionControlNetPipeline(**sd_parts(controlnet=controlnet("sd1", 20))),
        lambda: {"image": picture(12)},
    ),
    "multi_controlnet": (
        lambda: StableDiffusionControlNetPipeline(
            **sd_parts(controlnet=[controlnet("sd1", 20), controlnet("sd1", 21)])
        ),
        lambda: {"image": [picture(12), picture(13)], "controlnet_conditioning_scale": [1.0, 0.5]},
    ),
    "guess_mode": (
        lambda: StableDiffusionControlNetPipeline(**sd_parts(controlnet=controlnet("sd1", 20))),
        lambda: {"image": picture(12), "guess_mode": True},
    ),
    "controlnet_img2img": (
        lambda: StableDiffusionControlNetImg2ImgPipeline(**sd_parts(controlnet=controlnet("sd1", 20))),
        lambda: {"image": picture(10), "control_image": picture(12), "strength": 0.7, "num_inference_steps": 3},
    ),
    "controlnet_inpaint": (
        lambda: StableDiffusionControlNetInpaintPipeline(**sd_parts(controlnet=controlnet("sd1", 20))),
        lambda: _inpaint() | {"control_image": picture(12)},
    ),
    "ip_adapter": (_ip_adapter, lambda: {"ip_adapter_image": picture(14)}),
    "lora": (_lora, dict),
    "sdxl": (lambda: StableDiffusionXLPipeline(**xl_parts()), dict),
    "sdxl_img2img": (
        lambda: StableDiffusionXLImg2ImgPipeline(**xl_parts()),
        lambda: {"image": picture(10), "strength": 0.7, "num_inference_steps": 3},
    ),
    "sdxl_inpaint": (lambda: StableDiffusionXLInpaintPipeline(**xl_parts()), _xl_inpaint),
    "sdxl_inpaint9": (lambda: StableDiffusionXLInpaintPipeline(**xl_parts("xl_inpaint9")), _xl_inpaint),
    "sdxl_controlnet": (
        lambda: StableDiffusionXLControlNetPipeline(**xl_parts(controlnet=controlnet("xl", 22))),
        lambda: {"image": picture(12)},
    ),
    "animatediff": (_animatediff, lambda: {"num_frames": 3, "height": SIZE, "width": SIZE}),
    "instruct": (
        lambda: StableDiffusionInstructPix2PixPipeline(**sd_parts("instruct")),
        lambda: {"image": picture(10)},
    ),
    "sdxl_instruct": (
        lambda: StableDiffusionXLInstructPix2PixPipeline(**xl_parts("xl_instruct")),
        lambda: {"image": picture(10), "height": SIZE, "width": SIZE},
    ),
    "depth": (_depth, lambda: {"image": picture(10), "strength": 0.7, "num_inference_steps": 3}),
    "pag": (lambda: StableDiffusionPAGPipeline(**sd_parts()), lambda: {"pag_scale": 3.0}),
    "sdxl_pag": (
        lambda: StableDiffusionXLPAGPipeline(**xl_parts(), pag_applied_layers=["mid", "up_blocks.0"]),
        lambda: {"pag_scale": 3.0},
    ),
    "animatediff_pag": (
        lambda: AnimateDiffPAGPipeline(**base_parts(), unet=unet(), motion_adapter=motion_adapter()),
        lambda: {"num_frames": 3, "height": SIZE, "width": SIZE, "pag_scale": 3.0},
    ),
    "panorama": (
        lambda: StableDiffusionPanoramaPipeline(**sd_parts()),
        lambda: {"height": SIZE, "width": 9 * SIZE, "view_batch_size": 2},
    ),
}


@made_once
def _pipeline(kind: str) -> DiffusionPipeline:
    make, _ = KINDS[kind]
    level = logging.getLogger("diffusers").level
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    try:
        return make()
    finally:
        logging.getLogger("diffusers").setLevel(level)


def tiny(kind: str) -> Tiny:
    """Return a fresh tiny pipeline of `kind`, one of `KINDS`."""
    _, arguments = KINDS[kind]
    pipe = _pipeline(kind)
    pipe.set_progress_bar_config(disable=True)
    return Tiny(kind, pipe, _TEXT | arguments())


tiny_pipeline = made_once(make_tiny_pipeline)
"""A fresh tiny pipeline of a published system, by name or class."""


def diffusers_trailing_ddim() -> DDIMScheduler:
    """What FlashFace's sampler is where 1000 / steps is whole."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
