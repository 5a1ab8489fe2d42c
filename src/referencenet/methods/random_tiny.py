"""A tiny pipeline of FlashFace, which does not lead the shared life yet; `tiny.py` makes all others.

Weights are drawn from a seed, parameter by parameter, so they are the same on every machine and no global state moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from referencenet.checkpoints.flashface import unet_config
from referencenet.methods import flashface
from referencenet.methods.tiny import STOCK, filled
from referencenet.networks.additive_unet import AdditiveUNet
from referencenet.sampling.trailing_ddim import TrailingDDIMScheduler

APART = torch.random.fork_rng(devices=[])
"""What constructors draw before the seed decides, they draw from a copy of the global generator."""


@APART
def tiny_flashface(seed: int = 0) -> flashface.FlashFacePipeline:
    """FlashFace with random weights."""
    tokenizer = STOCK[CLIPTokenizer]({}, seed)
    config = unet_config(dim=32, dim_mult=(1, 2), context_dim=8, num_res_blocks=1, attn_scales=(1, 1 / 2))
    config |= {"sample_size": 8}
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return flashface.FlashFacePipeline(
        vae=STOCK[AutoencoderKL]({}, seed + 4),
        text_encoder=filled(text_encoder, seed + 1),
        tokenizer=tokenizer,
        unet=filled(AdditiveUNet(**config, in_channels=5), seed + 2),
        reference_unet=filled(UNet2DConditionModel(**config), seed + 3),
        scheduler=TrailingDDIMScheduler(),
    )


RANDOM_TINY: Mapping[str, Callable[[], Any]] = MappingProxyType({
    "flashface": tiny_flashface,
})  # fmt: skip
"""System to what makes its tiny pipeline."""
