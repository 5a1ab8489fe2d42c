"""Stable Diffusion 1's networks from their configurations: for systems whose one file holds all of them.

A configuration maps each of "unet", "vae" and "text_encoder" to that of its network, as `SD15_PARTS` does; a
ControlNet's and a reference UNet's follow from the UNet's.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import device, get_default_device
from transformers import CLIPTextConfig, CLIPTextModel

from referencenet.networks.layout import SD15_UNET, TINY_SD15, picture_config
from referencenet.networks.level_controlnet import LevelControlNet
from referencenet.networks.reference_unet import ReferenceUNet

SD15_PARTS: Mapping[str, Mapping[str, Any]] = {
    "unet": SD15_UNET,
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    },
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
}
"""Stable Diffusion 1.5's networks at full size."""

TINY_PARTS: Mapping[str, Mapping[str, Any]] = {
    "unet": TINY_SD15,
    "vae": {
        "block_out_channels": (4, 4, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "sample_size": 64,
        "force_upcast": False,
    },
    "text_encoder": {
        "vocab_size": 54,  # of the tiny tokenizer: small letters, and the two ends
        "bos_token_id": 52,
        "eos_token_id": 53,
        "pad_token_id": 53,
        "hidden_size": 16,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 16,
    },
}
"""The same, narrow."""

HINT_WIDTHS = (16, 32, 96, 256)
"""Of a ControlNet's embedding of its pictures."""


def build_unet(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """The denoiser."""
    return UNet2DConditionModel(**picture_config(config["unet"]))


def build_reference_unet(config: Mapping[str, Any]) -> ReferenceUNet:
    """A UNet without an output head."""
    return ReferenceUNet(**picture_config(config["unet"]))


def build_controlnet(config: Mapping[str, Any]) -> ControlNetModel:
    """A ControlNet of the denoiser, for pictures of three channels."""
    told = {"conditioning_embedding_out_channels": HINT_WIDTHS, **_known(ControlNetModel, config["unet"])}
    kind = ControlNetModel if isinstance(told.get("layers_per_block", 2), int) else LevelControlNet
    return kind(**told)


def build_vae(config: Mapping[str, Any]) -> AutoencoderKL:
    """The autoencoder."""
    return AutoencoderKL(**_known(AutoencoderKL, config["vae"]))


def build_text_encoder(config: Mapping[str, Any]) -> CLIPTextModel:
    """CLIP's text model; its buffers (a count of positions) are there even where weights are not."""
    told = CLIPTextConfig(**config["text_encoder"])
    if get_default_device().type != "meta":
        return CLIPTextModel(told)
    with device("cpu"), init_empty_weights(include_buffers=False):
        return CLIPTextModel(told)


def parts_config(_paths: Mapping[str, Path], base: str | Path | None) -> Mapping[str, Mapping[str, Any]]:
    """The configurations of a base model's folder or hub name; None: Stable Diffusion 1.5's."""
    return configs_of(base, list(SD15_PARTS))


def configs_of(base: str | Path | None, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Configurations of some networks.

    Args:
        base: A base model's folder or hub name; None: Stable Diffusion 1.5.
        names: Of `SD15_PARTS`.
    """
    if base is None:
        return {name: SD15_PARTS[name] for name in names}
    return {name: _base_config(name, str(base)) for name in names}


def _base_config(name: str, base: str) -> Any:
    """The configuration of one network of a base."""
    if name == "text_encoder":
        return CLIPTextConfig.from_pretrained(base, subfolder=name).to_dict()
    kind: Any = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[name]
    return kind.load_config(base, subfolder=name)


def _known(kind: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that a network's constructor takes."""
    names = inspect.signature(kind.__init__).parameters
    return {name: value for name, value in config.items() if name in names and not name.startswith("_")}
