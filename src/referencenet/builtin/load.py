"""The built-in model: a text-to-image pipeline, the pose ReferenceNet beside it, and the observer that scores.

The weights lie in this package, in half precision; they are computed with in single precision, which CPUs prefer.
Parts that both pipelines share (autoencoder, text encoder, tokenizer, denoiser) lie there once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from referencenet.methods.referencenet import ReferenceNetPipeline
from referencenet.networks.observer import Observer
from referencenet.networks.pose_guider import PoseGuider

WEIGHTS = Path(__file__).parent / "weights"
STEPS = 20
"""Denoising steps that suffice for both pipelines."""
GUIDANCE = 3.0
"""Of the base model, with and without links."""

Name = Literal["base", "referencenet"]


@overload
def load(
    name: Literal["base"] = "base", *, folder: Path = ..., dtype: torch.dtype = ...
) -> StableDiffusionPipeline: ...
@overload
def load(name: Literal["referencenet"], *, folder: Path = ..., dtype: torch.dtype = ...) -> ReferenceNetPipeline: ...
def load(
    name: Name = "base", *, folder: Path = WEIGHTS, dtype: torch.dtype = torch.float32
) -> StableDiffusionPipeline | ReferenceNetPipeline:
    """Load a built-in pipeline.

    Args:
        name: `base` draws from text, 64x64 pixels; `referencenet` draws a person of a picture in a given pose.
        folder: Where the weights lie; another folder that `export` wrote may be given.
        dtype: What is computed in.

    Raises:
        ValueError: If there is no pipeline of this name.
        FileNotFoundError: If the folder has no weights.
    """
    if name not in ("base", "referencenet"):
        raise ValueError(f"there is no built-in pipeline {name!r}; expected 'base' or 'referencenet'.")
    _check_folder(folder)
    base = folder / "base"
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae", dtype=dtype)
    text_encoder = CLIPTextModel.from_pretrained(base / "text_encoder", dtype=dtype)
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    scheduler = DDIMScheduler.from_pretrained(base, subfolder="scheduler")
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet", dtype=dtype)
    if name == "base":
        return StableDiffusionPipeline(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            safety_checker=None,  # pyright: ignore[reportArgumentType]
            feature_extractor=None,  # pyright: ignore[reportArgumentType]
            requires_safety_checker=False,
        )
    parts = folder / "referencenet"
    return ReferenceNetPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        pose_guider=PoseGuider.from_pretrained(parts, subfolder="pose_guider", dtype=dtype),
        reference_unet=UNet2DConditionModel.from_pretrained(parts, subfolder="reference_unet", dtype=dtype),
    )


def load_observer(*, folder: Path = WEIGHTS) -> Observer:
    """Load the network that scores pictures: who, in which pose, and what can be said of them.

    Raises:
        FileNotFoundError: If the folder has no weights.
    """
    _check_folder(folder)
    return Observer.from_pretrained(folder / "observer", dtype=torch.float32).eval()


def load_image_encoder(*, folder: Path = WEIGHTS, dtype: torch.dtype = torch.float32) -> CLIPVisionModelWithProjection:
    """Load the picture encoder that stands in CLIP's place: 64 pixels a side, embeddings of 96 channels.

    Raises:
        FileNotFoundError: If the folder has no weights.
    """
    _check_folder(folder)
    return CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", dtype=dtype).eval()


def _check_folder(folder: Path) -> None:
    if not (folder / "base" / "unet").is_dir():
        raise FileNotFoundError(
            f"there are no built-in weights in {folder}; install the package again, or train them with "
            "`refnet train builtin`."
        )
