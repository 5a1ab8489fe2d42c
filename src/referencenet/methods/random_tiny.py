"""A tiny pipeline of IDM-VTON, which does not lead the shared life yet; `tiny.py` makes all others.

Weights are drawn from a seed, parameter by parameter, so they are the same on every machine and no global state moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from referencenet.checkpoints.idm_vton import SDXL_UNET
from referencenet.methods import idm_vton
from referencenet.methods.tiny import STOCK, filled
from referencenet.networks.image_prompt import ImagePromptResampler, ImagePromptUNet

TINY_SDXL_UNET: Mapping[str, Any] = SDXL_UNET | {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (1, 2),
    "cross_attention_dim": 16,
    "norm_num_groups": 4,
}
"""Stable Diffusion XL's UNet with two narrow levels."""

APART = torch.random.fork_rng(devices=[])
"""What constructors draw before the seed decides, they draw from a copy of the global generator."""


@APART
def tiny_idm_vton(seed: int = 0) -> idm_vton.IDMVTONPipeline:
    """IDM-VTON with random weights."""
    tokenizer = STOCK[CLIPTokenizer]({}, seed)
    unet = ImagePromptUNet(
        **TINY_SDXL_UNET | {"in_channels": 13},
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=8 + 6 * 4,
    )
    resampler = ImagePromptResampler(
        embed_dims=8, output_dims=16, hidden_dims=8, depth=1, dim_head=4, heads=2, num_queries=4
    )
    text_encoder, text_encoder_2 = (
        make(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=8,
                intermediate_size=12,
                num_hidden_layers=2,
                num_attention_heads=2,
                projection_dim=8,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        for make in (CLIPTextModel, CLIPTextModelWithProjection)
    )
    return idm_vton.IDMVTONPipeline(
        vae=STOCK[AutoencoderKL]({}, seed + 4),
        text_encoder=filled(text_encoder, seed + 1),
        text_encoder_2=filled(text_encoder_2, seed + 2),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=filled(unet, seed + 3),
        image_projection=filled(resampler, seed + 6),
        garment_unet=filled(UNet2DConditionModel(**TINY_SDXL_UNET), seed + 7),
        image_encoder=STOCK[CLIPVisionModelWithProjection](TINY_SDXL_UNET, seed + 5),
        feature_extractor=STOCK[CLIPImageProcessor]({}, seed),
        scheduler=DDPMScheduler(**idm_vton.SCHEDULER),
    )


RANDOM_TINY: Mapping[str, Callable[[], Any]] = MappingProxyType({
    "idm_vton": tiny_idm_vton,
})  # fmt: skip
"""System to what makes its tiny pipeline."""
