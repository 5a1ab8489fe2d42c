"""What IDM-VTON's training starts from: SDXL's inpainting UNet with IP-Adapter Plus, SDXL's own UNet for garments.

IP-Adapter numbers its layers as the UNet registers its attention processors: down, up, middle, two of each block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from referencenet.checkpoints.files import read_state
from referencenet.checkpoints.idm_vton import (
    CONFIG,
    FURTHER_SIZES,
    GARMENT_NET,
    PUBLISHED,
    RESAMPLER,
    resampler_config,
)
from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.library import read_configuration
from referencenet.checkpoints.published import Part, PublishedFile
from referencenet.networks.layout import picture_config

ADAPTER = "ip-adapter-plus_sdxl_vit-h.bin"
GARMENT = "stable-diffusion-xl-base-1.0/unet/diffusion_pytorch_model.safetensors"
ENCODER = "image_encoder/model.safetensors"
PROCESSORS = r".*\.attn2\.processor\..*"
BASE = "huggingface.co/diffusers/stable-diffusion-xl-1.0-inpainting-0.1"


def cross_attentions(config: Mapping[str, Any]) -> list[str]:
    """Names of a UNet's cross-attentions in the order in which IP-Adapter counts them.

    Args:
        config: Of a UNet2DConditionModel.
    """
    kinds, pairs = list(config["down_block_types"]), config["layers_per_block"]
    depths = config.get("transformer_layers_per_block", 1)
    depths = [depths] * len(kinds) if isinstance(depths, int) else list(depths)
    places = [(f"down_blocks.{i}", pairs, depths[i]) for i, kind in enumerate(kinds) if "CrossAttn" in kind]
    ups = list(config["up_block_types"])
    places += [(f"up_blocks.{i}", pairs + 1, depths[-1 - i]) for i, kind in enumerate(ups) if "CrossAttn" in kind]
    places.append(("mid_block", 1, depths[-1]))
    return [
        f"{block}.attentions.{pair}.transformer_blocks.{layer}.attn2"
        for block, count, depth in places
        for pair in range(count)
        for layer in range(depth)
    ]


def adapter_keys(config: Mapping[str, Any]) -> KeyMap:
    """IP-Adapter's attention layers to TryonNet's, of a UNet's configuration."""
    numbered = enumerate(cross_attentions(config))
    return KeyMap(
        renames=[
            (rf"^ip_adapter\.{2 * i + 1}\.to_([kv])_ip\.weight$", rf"{name}.processor.to_\1_ip.0.weight")
            for i, name in numbered
        ],
        ignored={r"image_proj\..*": "the resampler's"},
    )


def files_of(config: Mapping[str, Mapping[str, Any]]) -> tuple[PublishedFile, ...]:
    """The files' rows for networks of a configuration."""
    adapter = {"path": ADAPTER, "manifest": "idm_vton-init-ip-adapter"}
    resampler = replace(
        RESAMPLER,
        renames=[(r"^image_proj\.", "encoder_hid_proj."), *RESAMPLER.renames],
        ignored={r"ip_adapter\..*": "TryonNet's"},
    )
    encoder = next(file for file in PUBLISHED.files if file.component == "image_encoder")
    return (
        PublishedFile(component="unet", keymap=adapter_keys(config["unet"]), share=PROCESSORS, **adapter),
        PublishedFile(component="image_projection", keymap=resampler, **adapter),
        PublishedFile(path=GARMENT, component="reference_unet", keymap=GARMENT_NET),
        replace(encoder, path=ENCODER),
    )


def configuration(paths: Mapping[str, Path], base: str | Path | None) -> dict[str, Mapping[str, Any]]:
    """Component to its configuration: the base's with four input channels more, and those beside the files.

    Args:
        paths: Published path to the path on this disk.
        base: Of the inpainting model.

    Raises:
        CheckpointError: If a configuration is damaged, or IP-Adapter's file has no resampler.
    """
    unet = CONFIG["unet"] if base is None else UNet2DConditionModel.load_config(str(base), subfolder="unet")
    beside = {name: _beside(paths[path]) for name, path in (("reference_unet", GARMENT), ("image_encoder", ENCODER))}
    sizes = {*CONFIG["image_encoder"], *FURTHER_SIZES["image_encoder"]}
    encoder = {name: value for name, value in beside["image_encoder"].items() if name in sizes}
    garment = {name: value for name, value in beside["reference_unet"].items() if name in CONFIG["reference_unet"]}
    state = {key.replace("image_proj.", "encoder_hid_proj."): x for key, x in read_state(paths[ADAPTER]).items()}
    return {
        "unet": picture_config(unet) | {"in_channels": CONFIG["unet"]["in_channels"]},
        "image_projection": resampler_config(state),
        "reference_unet": {**CONFIG["reference_unet"], **garment},
        "image_encoder": {**CONFIG["image_encoder"], **encoder},
    }


def _beside(path: Path) -> Mapping[str, Any]:
    """The `config.json` beside a weight file; nothing where there is none."""
    place = path.with_name("config.json")
    return read_configuration(place) if place.is_file() else {}


PUBLISHED_START = replace(
    PUBLISHED,
    name="idm_vton.start",
    source="huggingface.co/h94/IP-Adapter (sdxl_models; its models/image_encoder) and "
    "huggingface.co/stabilityai/stable-diffusion-xl-base-1.0",
    licence="Apache-2.0 (IP-Adapter) and CreativeML Open RAIL++-M (SDXL)",
    files=files_of(CONFIG),
    configure=configuration,
    further={
        **PUBLISHED.further,
        "vae": Part(kind=AutoencoderKL, in_base=True, source=BASE),
        "text_encoder": Part(kind=CLIPTextModel, in_base=True, source=BASE),
        "text_encoder_2": Part(kind=CLIPTextModelWithProjection, in_base=True, source=BASE),
    },
)
"""Files beside the inpainting model, which is the base."""
