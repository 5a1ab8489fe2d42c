"""IDM-VTON's released files as a row and tables: `yisol/IDM-VTON`, laid out like a pipeline folder of diffusers.

The file `unet` holds two networks: TryonNet with its decoupled attention, and the resampler of the image prompt.
Written for diffusers 0.25 (yisol/IDM-VTON, commit 0d5f3ec), the names are the current ones but for the few below.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, device, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from referencenet.checkpoints.files import read_state
from referencenet.checkpoints.keymap import CheckpointError, KeyMap, Split
from referencenet.checkpoints.library import read_configuration
from referencenet.checkpoints.published import Part, PublishedFile, PublishedSet
from referencenet.networks.image_prompt import ImagePromptResampler, ImagePromptUNet
from referencenet.networks.stable_diffusion import SD15_PARTS

SDXL_UNET: Mapping[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),  # numbers of heads, as diffusers has called them since 2022
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "norm_num_groups": 32,
}
"""SDXL's UNet without its added embedding: GarmentNet."""

CONFIG: Mapping[str, Mapping[str, Any]] = {
    "unet": {
        **SDXL_UNET,
        "in_channels": 13,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "image_projection": {},
    "reference_unet": SDXL_UNET,
    "image_encoder": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "projection_dim": 1024,
        "hidden_act": "gelu",
    },
    "text_encoder": SD15_PARTS["text_encoder"],
    "text_encoder_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "sample_size": 1024,
        "scaling_factor": 0.13025,
        "force_upcast": True,
    },
}
"""Component to its configuration at full size."""

TINY_SDXL_UNET: Mapping[str, Any] = SDXL_UNET | {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (1, 2),
    "cross_attention_dim": 32,  # two text models of 16
    "norm_num_groups": 4,
}
"""Stable Diffusion XL's UNet with two narrow levels."""

TINY_CONFIG: Mapping[str, Mapping[str, Any]] = {
    "unet": {
        **TINY_SDXL_UNET,
        "in_channels": 13,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 16 + 6 * 4,
    },
    "image_projection": {
        "embed_dims": 8,
        "output_dims": 32,
        "hidden_dims": 64,
        "depth": 1,
        "dim_head": 64,  # as released: files do not tell it
        "heads": 1,
        "num_queries": 4,
    },
    "reference_unet": TINY_SDXL_UNET,
}
"""Narrow networks, to try an installation; what is not told here is diffusers' or transformers' own."""

SCHEDULER: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "variance_type": "fixed_small",
    "rescale_betas_zero_snr": True,  # as the training script saves it
}

default_scheduler = partial(DDPMScheduler, **SCHEDULER)
"""DDPM, where a folder has no scheduler of its own."""

_VOCABULARY = ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")

FURTHER_SIZES: Mapping[str, tuple[str, ...]] = {
    "image_encoder": ("image_size",),
    "text_encoder": _VOCABULARY,
    "text_encoder_2": _VOCABULARY,
    "vae": ("latent_channels", "norm_num_groups"),
}
"""What else a folder's own configuration may say; the released one says the libraries' defaults."""

RESAMPLER_HEAD = 64  # channels of a head of the released resampler, which its weights do not tell

ATTENTION = (r"(\.attn2\.processor\.to_[kv]_ip)\.weight$", r"\1.0.weight")
"""diffusers lets several image prompts in; IDM-VTON has one."""

RESAMPLER = KeyMap(
    renames=[
        (r"^encoder_hid_proj\.", ""),
        (r"^(layers\.\d+)\.0\.norm1\.", r"\1.ln0."),
        (r"^(layers\.\d+)\.0\.norm2\.", r"\1.ln1."),
        (r"^(layers\.\d+)\.0\.to_out\.", r"\1.attn.to_out.0."),
        (r"^(layers\.\d+)\.0\.to_", r"\1.attn.to_"),
        (r"^(layers\.\d+)\.1\.0\.", r"\1.ff.0."),
        (r"^(layers\.\d+)\.1\.1\.", r"\1.ff.1.net.0.proj."),
        (r"^(layers\.\d+)\.1\.3\.", r"\1.ff.1.net.2."),
    ],
    splits=[
        Split(
            pattern=r"(layers\.\d+)\.attn\.to_kv\.weight", into=(r"\1.attn.to_k.weight", r"\1.attn.to_v.weight"), dim=0
        )
    ],
    ignored={r"(add_embedding|conv_\w+|down_blocks|mid_block|time_embedding|up_blocks)\..*": "belongs to TryonNet"},
)
TRYON_NET = KeyMap(renames=[ATTENTION], ignored={r"encoder_hid_proj\..*": "belongs to the image prompt's resampler"})
GARMENT_NET = KeyMap(
    ignored={r"add_embedding\..*": "GarmentNet gets no pooled text and no sizes; SDXL's file has them"}
)
OLD_BUFFER = {r".*embeddings\.position_ids": "a count from 0 on that older files store"}
CLIP = KeyMap(ignored=OLD_BUFFER)
CLIP_TEXT = KeyMap(renames=[(r"^text_model\.", "")], ignored=OLD_BUFFER)  # transformers 5 dropped the prefix here only


def _with_buffers(make: type[nn.Module], config: Any) -> nn.Module:
    """A network without weights whose buffers (position counts) are there."""
    with device("cpu"), init_empty_weights(include_buffers=False):
        return make(config)


def build_tryon_net(config: Mapping[str, Any]) -> ImagePromptUNet:
    """TryonNet."""
    return ImagePromptUNet(**config["unet"])


def build_garment_net(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """GarmentNet."""
    return UNet2DConditionModel(**config["reference_unet"])


def build_resampler(config: Mapping[str, Any]) -> ImagePromptResampler:
    """The image prompt's resampler."""
    return ImagePromptResampler(**config["image_projection"])


def build_image_encoder(config: Mapping[str, Any]) -> nn.Module:
    """CLIP ViT-H/14."""
    return _with_buffers(CLIPVisionModelWithProjection, CLIPVisionConfig(**config["image_encoder"]))


def build_text_encoder(config: Mapping[str, Any]) -> nn.Module:
    """CLIP ViT-L/14's text model."""
    return _with_buffers(CLIPTextModel, CLIPTextConfig(**config["text_encoder"]))


def build_text_encoder_2(config: Mapping[str, Any]) -> nn.Module:
    """OpenCLIP ViT-bigG/14's text model."""
    return _with_buffers(CLIPTextModelWithProjection, CLIPTextConfig(**config["text_encoder_2"]))


def build_vae(config: Mapping[str, Any]) -> AutoencoderKL:
    """SDXL's VAE."""
    return AutoencoderKL(**config["vae"])


FILES: Mapping[str, str] = {
    "unet": "unet/diffusion_pytorch_model.bin",
    "reference_unet": "unet_encoder/diffusion_pytorch_model.safetensors",
    "image_encoder": "image_encoder/model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "text_encoder_2": "text_encoder_2/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}
"""Component to its released file; that of `unet` has the resampler as well."""

SOURCE = "huggingface.co/yisol/IDM-VTON (upper garments; yisol/IDM-VTON-DC: DressCode's upper, lower, dresses)"


def _file(component: str, keymap: KeyMap) -> PublishedFile:
    """A released file's row."""
    folder = FILES[component].split("/")[0]
    return PublishedFile(path=FILES[component], component=component, keymap=keymap, manifest=f"idm_vton-{folder}")


def configuration(paths: Mapping[str, Path], base: Any) -> dict[str, Mapping[str, Any]]:  # noqa: ARG001 - as called
    """Component to its configuration: what the `config.json` beside its file says, and the released sizes elsewhere.

    Args:
        paths: Published path to the path on this disk.
        base: Not asked: all networks are released.

    Raises:
        CheckpointError: If a `config.json` is damaged, or the file `unet` has no resampler.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for component, file in FILES.items():
        released = CONFIG[component]
        beside = paths[file].with_name("config.json")
        says = read_configuration(beside) if beside.is_file() else {}
        names = {*released, *FURTHER_SIZES.get(component, ())}
        found[component] = {**released, **{name: says[name] for name in names & set(says)}}
    return found | {"image_projection": resampler_config(read_state(paths[FILES["unet"]]))}


def resampler_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The resampler's sizes from its tensors' shapes."""
    try:
        shapes = {
            name: state[f"encoder_hid_proj.{name}"].shape
            for name in (
                "latents",
                "proj_in.weight",
                "proj_out.weight",
                "layers.0.0.to_q.weight",
                "layers.0.1.1.weight",
            )
        }
    except KeyError as error:
        raise CheckpointError(
            f"this is not a UNet of IDM-VTON: it has no {error}, of the image prompt's resampler. Give the file "
            f"{FILES['unet']} of {SOURCE}."
        ) from error
    width = shapes["latents"][2]
    layers = {key.split(".")[2] for key in state if key.startswith("encoder_hid_proj.layers.")}
    return {
        "embed_dims": shapes["proj_in.weight"][1],
        "output_dims": shapes["proj_out.weight"][0],
        "hidden_dims": width,
        "depth": len(layers),
        "dim_head": RESAMPLER_HEAD,
        "heads": shapes["layers.0.0.to_q.weight"][0] // RESAMPLER_HEAD,
        "num_queries": shapes["latents"][1],
        "ffn_ratio": shapes["layers.0.1.1.weight"][0] / width,
    }


PUBLISHED = PublishedSet(
    name="idm_vton.viton_hd",
    source=SOURCE,
    licence="CC BY-NC-SA 4.0",
    paper="2403.05139",
    files=(
        _file("unet", TRYON_NET),
        PublishedFile(path=FILES["unet"], component="image_projection", keymap=RESAMPLER, manifest="idm_vton-unet"),
        _file("reference_unet", GARMENT_NET),
        _file("image_encoder", CLIP),
        _file("text_encoder", CLIP_TEXT),
        _file("text_encoder_2", CLIP),
        _file("vae", KeyMap()),
    ),
    build={
        "unet": build_tryon_net,
        "image_projection": build_resampler,
        "reference_unet": build_garment_net,
        "image_encoder": build_image_encoder,
        "text_encoder": build_text_encoder,
        "text_encoder_2": build_text_encoder_2,
        "vae": build_vae,
    },
    base_config=CONFIG,
    tiny_config=TINY_CONFIG,
    configure=configuration,
    further={
        "tokenizer": Part(kind=CLIPTokenizer, source="the same place", in_base=True),
        "tokenizer_2": Part(kind=CLIPTokenizer, source="the same place", in_base=True),
        "scheduler": Part(kind=DDPMScheduler, source="the same place", default=default_scheduler),
    },
)
"""Both releases have these files; which one a folder holds, its weights do not tell."""
