"""StableGarment's released files as rows: a garment encoder each for text-to-image and try-on, and a ControlNet.

Keys are diffusers' own (logn-2024/StableGarment, commit cccb6e3); folders and file names are inferred from the loading
code. The denoiser, its text and, by default, its scheduler are a base model's, which nothing was trained into.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys.reference_tail import IGNORED_TAIL
from referencenet.checkpoints.published import Part, PublishedFile, PublishedSet
from referencenet.networks.layout import SD15_SCHEDULE, SD15_UNET, picture_config
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.networks.tryon_controlnet import build_controlnet, build_guider

default_scheduler = partial(DDIMScheduler, **SD15_SCHEDULE)
"""DDIM with Stable Diffusion 1.5's configuration."""


def _garment_encoder(manifest: str) -> PublishedFile:
    return PublishedFile(
        path="garment_encoder/diffusion_pytorch_model.safetensors",
        component="reference_unet",
        keymap=KeyMap(ignored=IGNORED_TAIL),
        manifest=manifest,
    )


CONTROLNET = "controlnet/diffusion_pytorch_model.safetensors"
FEATURES = r"(controlnet_cond_embedding|conv_in_extra)\..*"
"""What of the published ControlNet is constant in a call."""

BASE = "a folder of Stable Diffusion 1.5, or of a relative such as SG161222/Realistic_Vision_V4.0_noVAE"

PUBLISHED = PublishedSet(
    name="stable_garment.text2img",
    source="huggingface.co/loooooong/StableGarment_text2img",
    licence="CC BY-NC-SA 4.0 by the readme (unverified); base: CreativeML OpenRAIL-M",
    paper="2403.10783",
    files=(_garment_encoder("stable_garment-text2img-garment_encoder"),),
    build={
        "reference_unet": lambda config: ReferenceUNet(**picture_config(config), cut=True),
        "unet": lambda config: UNet2DConditionModel(**picture_config(config)),  # no file fills it: the base does
    },
    base_config=SD15_UNET,
    further={
        "vae": Part(
            kind=AutoencoderKL,
            folder="sd-vae-ft-mse",
            in_base=True,
            source="huggingface.co/stabilityai/sd-vae-ft-mse",
        ),
        "text_encoder": Part(kind=CLIPTextModel, in_base=True, source=BASE),
        "tokenizer": Part(kind=CLIPTokenizer, in_base=True, source=BASE),
        "unet": Part(kind=UNet2DConditionModel, in_base=True, source=BASE),
        "scheduler": Part(kind=DDIMScheduler, in_base=True, source=BASE, default=default_scheduler),
    },
)
"""Text-to-image."""

PUBLISHED_TRYON = replace(
    PUBLISHED,
    name="stable_garment.tryon",
    source="huggingface.co/loooooong/StableGarment_tryon",
    files=(
        _garment_encoder("stable_garment-tryon-garment_encoder"),
        PublishedFile(
            path=CONTROLNET,
            component="controlnet",
            keymap=KeyMap(ignored={FEATURES: "the guider's"}),
            manifest="stable_garment-tryon-controlnet",
        ),
        PublishedFile(
            path=CONTROLNET,
            component="guider",
            keymap=KeyMap(ignored={rf"(?!{FEATURES}).*": "the ControlNet's"}),
            manifest="stable_garment-tryon-controlnet",
        ),
    ),
    build={**PUBLISHED.build, "controlnet": build_controlnet, "guider": build_guider},
)
"""Try-on."""
