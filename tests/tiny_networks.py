"""Tiny networks of diffusers and transformers: real classes, seeded random weights, built once per process and copied.

Sizes: pictures 64 x 64, latents (batch, 4, 8, 8), two UNet levels of unequal width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    DPTConfig,
    DPTForDepthEstimation,
)

from copies import made_once

SIZE = 64  # pixels
CONTEXT = 16  # channels of the text embeddings
TOKENS = 24  # of a prompt


def picture(seed: int = 0, size: tuple[int, int] = (SIZE, SIZE), mode: str = "RGB") -> Image.Image:
    """Return a smooth random picture of `size` (width, height)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def half_mask(side: str = "left", size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """Return a black mask whose left, right, top or bottom half is white."""
    array = np.zeros((size[1], size[0]), dtype=np.uint8)
    rows, columns = size[1] // 2, size[0] // 2
    halves = {
        "left": np.s_[:, :columns],
        "right": np.s_[:, columns:],
        "top": np.s_[:rows],
        "bottom": np.s_[rows:],
    }
    array[halves[side]] = 255
    return Image.fromarray(array)


def latents(seed: int, *shape: int) -> torch.Tensor:
    """Return seeded normal noise of `shape`, (1, 4, 8, 8) if none is given."""
    return torch.randn(shape or (1, 4, SIZE // 8, SIZE // 8), generator=torch.Generator().manual_seed(seed))


def fill(module: torch.nn.Module, seed: int, only: str = "") -> torch.nn.Module:
    """Fill the parameters whose names contain `only` with seeded noise, so that even zero-initialised ones work."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if only not in name:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                noise *= parameter[0].numel() ** -0.5
            elif bool((parameter == 1).all()):  # the gain of a norm
                noise = 1 + 0.1 * noise
            else:
                noise *= 0.1
            parameter.copy_(noise)
    return module.eval().requires_grad_(False)


def build(make: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    """Make a module and fill it from `seed`; the global random generator stays where it was."""
    with torch.random.fork_rng(devices=[]):
        return fill(make(), seed)


# --- parts ------------------------------------------------------------------------------------------------------------


def _byte_alphabet() -> list[str]:
    """Return the 256 printable characters that byte-level BPE uses for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]


@functools.cache
def tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer that spells every word letter by letter."""
    letters = _byte_alphabet()
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=TOKENS)


def _text_config(**changes: Any) -> CLIPTextConfig:
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer()),
        "hidden_size": CONTEXT,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": TOKENS,
        "projection_dim": CONTEXT,
        "bos_token_id": tokenizer().bos_token_id,
        "eos_token_id": tokenizer().eos_token_id,
        "pad_token_id": tokenizer().pad_token_id,
    }
    return CLIPTextConfig(**(settings | changes))


@made_once
def _text_encoder() -> torch.nn.Module:
    return build(lambda: CLIPTextModel(_text_config()), 1)


@made_once
def _text_encoder_2() -> torch.nn.Module:
    return build(lambda: CLIPTextModelWithProjection(_text_config(hidden_size=8, projection_dim=12)), 2)


@made_once
def image_encoder() -> torch.nn.Module:
    config = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=10,
    )
    return build(lambda: CLIPVisionModelWithProjection(config), 3)


@made_once
def depth_estimator() -> torch.nn.Module:
    config = DPTConfig(
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=12,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 4, 4],
        fusion_hidden_size=4,
        image_size=32,
        patch_size=8,
        is_hybrid=False,
    )
    return build(lambda: DPTForDepthEstimation(config), 9)


def image_processor() -> CLIPImageProcessor:
    """Return what brings pictures to the 32 x 32 pixels of the tiny vision models."""
    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


@made_once
def _vae() -> torch.nn.Module:
    return build(
        lambda: AutoencoderKL(
            block_out_channels=(4, 4, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            norm_num_groups=2,
            latent_channels=4,
            sample_size=SIZE,
            force_upcast=False,
        ),
        4,
    )


def unet_config(**changes: Any) -> dict[str, Any]:
    """Return the keyword arguments of the tiny SD 1.x UNet, with changes."""
    settings: dict[str, Any] = {
        "sample_size": SIZE // 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 2,
        "cross_attention_dim": CONTEXT,
        "norm_num_groups": 4,
    }
    return settings | changes


XL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (2, 4),
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 12,
    "cross_attention_dim": CONTEXT + 8,
}


@made_once
def _unet(name: str) -> torch.nn.Module:
    changes: dict[str, dict[str, Any]] = {
        "sd1": {},
        "sd2": {"attention_head_dim": (2, 4), "use_linear_projection": True},
        "inpaint9": {"in_channels": 9},
        "instruct": {"in_channels": 8},
        "depth": {"in_channels": 5},
        "xl": XL,
        "xl_instruct": XL | {"in_channels": 8},
        "refiner": XL | {"cross_attention_dim": 8, "projection_class_embeddings_input_dim": 5 * 4 + 12},
        "xl_inpaint9": XL | {"in_channels": 9},
    }
    return build(lambda: UNet2DConditionModel(**unet_config(**changes[name])), 5)


def unet(name: str = "sd1") -> UNet2DConditionModel:
    """Return a fresh copy of the tiny UNet `name`, one of those that `_unet` builds."""
    return _unet(name)  # pyright: ignore[reportReturnType]


@made_once
def controlnet(name: str, seed: int) -> torch.nn.Module:
    return build(
        lambda: ControlNetModel.from_unet(
            unet(name), conditioning_embedding_out_channels=(4, 4, 8, 8), load_weights_from_unet=False
        ),
        seed,
    )


@made_once
def motion_adapter() -> torch.nn.Module:
    return build(
        lambda: MotionAdapter(
            block_out_channels=(8, 16),
            motion_layers_per_block=1,
            motion_num_attention_heads=2,
            motion_norm_num_groups=4,
            motion_max_seq_length=8,
        ),
        6,
    )


def scheduler(**changes: Any) -> DDIMScheduler:
    """Return SD's DDIM scheduler, with changes."""
    settings: dict[str, Any] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    return DDIMScheduler(**(settings | changes))


def base_parts() -> dict[str, Any]:
    return {
        "vae": _vae(),
        "text_encoder": _text_encoder(),
        "tokenizer": tokenizer(),
        "scheduler": scheduler(),
    }


def sd_parts(name: str = "sd1", **changes: Any) -> dict[str, Any]:
    parts = {"unet": unet(name), "safety_checker": None, "feature_extractor": None, "image_encoder": None}
    return base_parts() | parts | {"requires_safety_checker": False} | changes


def xl_parts(name: str = "xl", **changes: Any) -> dict[str, Any]:
    parts = {"unet": unet(name), "text_encoder_2": _text_encoder_2(), "tokenizer_2": tokenizer()}
    return base_parts() | parts | changes


def ip_adapter_weights(model: torch.nn.Module, seed: int = 7) -> dict[str, dict[str, torch.Tensor]]:
    """Return random IP-Adapter weights for `model`, laid out as the published files are (four tokens per picture)."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * shape[-1] ** -0.5

    width = model.config["cross_attention_dim"]
    projection = {
        "proj.weight": noise(4 * width, 10),
        "proj.bias": noise(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    crossing = [name for name in model.attn_processors if name.endswith("attn2.processor")]
    layers: dict[str, torch.Tensor] = {}
    for index, name in enumerate(crossing):
        hidden = model.get_submodule(name.removesuffix(".processor")).inner_dim
        layers[f"{2 * index + 1}.to_k_ip.weight"] = noise(hidden, width)
        layers[f"{2 * index + 1}.to_v_ip.weight"] = noise(hidden, width)
    return {"image_proj": projection, "ip_adapter": layers}
