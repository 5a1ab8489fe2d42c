"""Pipelines at their published size without any weights, on PyTorch's meta device: to count what they would need."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from referencenet.methods.tiny import STOCK, components_of
from referencenet.networks.stable_diffusion import SD15_PARTS

CLIP_VISION: Mapping[str, int] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
}
"""ViT-L/14's vision model, as sd-image-variations has it."""

FULL: Mapping[Any, Callable[[], Any]] = {
    AutoencoderKL: lambda: AutoencoderKL(**SD15_PARTS["vae"]),
    CLIPTextModel: lambda: CLIPTextModel(CLIPTextConfig(**SD15_PARTS["text_encoder"])),
    CLIPVisionModelWithProjection: lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP_VISION)),
}
"""Parts that systems take from diffusers and transformers, by their kind."""


def full_pipeline(pipeline: type[Any]) -> Any:
    """A system's pipeline at full size on the meta device.

    Args:
        pipeline: Its class.

    Raises:
        ValueError: If a part is of no known kind.
    """
    with torch.device("meta"):
        return pipeline(**{name: _part(pipeline, name, kind) for name, kind in components_of(pipeline).items()})


def _part(pipeline: Any, name: str, annotation: Any) -> Any:
    """One component."""
    published = pipeline.published
    if name == "scheduler":
        with torch.device("cpu"):
            return pipeline.spec.scheduler()
    kinds = typing.get_args(annotation) or (annotation,)
    if any(kind in kinds for kind in (CLIPImageProcessor, CLIPTokenizer)):  # no weights: the small ones will do
        kind = next(kind for kind in (CLIPImageProcessor, CLIPTokenizer) if kind in kinds)
        return STOCK[kind](published.tiny_config, 0)
    if name in published.build:
        return published.build[name](published.base_config)
    for kind, make in FULL.items():
        if kind in kinds:
            return make()
    raise ValueError(f"{pipeline.__name__}'s {name} is a {annotation}; its published size is not known here.")
