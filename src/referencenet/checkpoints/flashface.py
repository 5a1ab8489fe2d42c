"""FlashFace's released files as rows; the shapes in `flashface.ckpt` tell the size of its two networks.

`sd-v1-vae.pth` and `openai-clip-vit-large-14.pth` hold Stable Diffusion 1.5's own autoencoder and text encoder: where
they are not given, a base brings both. No tokenizer was released.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from referencenet.checkpoints.files import read_state
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.keys import ldm
from referencenet.checkpoints.keys.flashface import TEXT_KEYS, denoiser_keys, reference_keys, vae_keys
from referencenet.checkpoints.published import Part, PublishedFile, PublishedSet
from referencenet.networks.additive_unet import AdditiveUNet
from referencenet.networks.stable_diffusion import SD15_PARTS, TINY_PARTS, build_text_encoder, build_vae, configs_of

CKPT = "flashface.ckpt"


def unet_config(*, dim: int, dim_mult: Sequence[int], context_dim: int, num_heads: int = 8, num_res_blocks: int = 2,
                attn_scales: Sequence[float] = (1 / 4, 1 / 2, 1)) -> dict[str, Any]:  # fmt: skip
    """Both networks' configuration in diffusers' words; the denoiser has a fifth input channel.

    Args:
        dim: Width of the first level.
        dim_mult: Of every level.
        context_dim: Channels of the text.
        num_heads: Of every attention.
        num_res_blocks: Per level.
        attn_scales: Scales of the levels that have attention, the first level being 1.
    """
    config = ldm.unet_config(
        model_channels=dim,
        channel_mult=dim_mult,
        num_res_blocks=num_res_blocks,
        attention_resolutions=[round(1 / scale) for scale in attn_scales],
        num_heads=num_heads,
        context_dim=context_dim,
    )
    # Stable Diffusion has an epsilon of 1e-5 in its residual blocks and before its output; 96: 768 pixels, as trained
    return config | {"norm_eps": 1e-6, "sample_size": 96}


def released_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The same, read from the shapes of `flashface.ckpt`.

    Args:
        state: Published keys of the whole file.

    Raises:
        CheckpointError: If tensors that tell it are not there.
    """
    try:
        widths = [state[f"ori_encoder.{1 + 3 * level}.0.layer1.2.weight"].shape[0] for level in range(4)]
        context_dim = state["ori_encoder.1.1.blocks.0.cross_attn.k.weight"].shape[1]
    except KeyError as error:
        raise CheckpointError(f"this is not a FlashFace checkpoint: it has no {error}. Give {CKPT}.") from error
    return unet_config(dim=widths[0], dim_mult=[w // widths[0] for w in widths], context_dim=context_dim)


def _configure(paths: Mapping[str, Path], base: str | Path | None) -> Mapping[str, Mapping[str, Any]]:
    """The networks' configurations: of the UNets by their shapes, of the others the base's or Stable Diffusion 1.5's.

    Only those of files that are there are looked for.
    """
    unet = {"unet": released_config(read_state(paths[CKPT]))}
    beside = [file.component for file in PUBLISHED.files if file.path in paths and file.component in SD15_PARTS]
    return configs_of(base, [name for name in beside if name != "unet"]) | unet


def build_denoiser(config: Mapping[str, Any]) -> AdditiveUNet:
    """The denoiser: a second attention, and the face's place as fifth input channel."""
    return AdditiveUNet(**config["unet"] | {"in_channels": 5})


def build_reference_unet(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """The network that writes the faces."""
    return UNet2DConditionModel(**config["unet"])


BASE = "Stable Diffusion 1.5 in diffusers' layout, such as stable-diffusion-v1-5/stable-diffusion-v1-5"

PUBLISHED = PublishedSet(
    name="flashface.sd15",
    source="huggingface.co/shilongz/FlashFace-SD1.5",
    licence="MIT by its tag; derived from Stable Diffusion 1.5, CreativeML OpenRAIL-M",
    paper="2403.17008",
    files=(
        PublishedFile(path=CKPT, component="unet", keymap=denoiser_keys(), manifest="flashface-unet"),
        PublishedFile(path=CKPT, component="reference_unet", keymap=reference_keys(), manifest="flashface-unet"),
        PublishedFile(path="sd-v1-vae.pth", component="vae", keymap=vae_keys(), manifest="flashface-vae"),
        PublishedFile(
            path="openai-clip-vit-large-14.pth",
            component="text_encoder",
            keymap=TEXT_KEYS,
            manifest="flashface-clip",
        ),
    ),
    build={
        "unet": build_denoiser,
        "reference_unet": build_reference_unet,
        "vae": build_vae,
        "text_encoder": build_text_encoder,
    },
    base_config={**SD15_PARTS, "unet": unet_config(dim=320, dim_mult=(1, 2, 4, 4), context_dim=768)},
    tiny_config={
        **TINY_PARTS,
        "unet": unet_config(dim=32, dim_mult=(1, 2), context_dim=16, num_res_blocks=1, attn_scales=(1, 1 / 2))
        | {"sample_size": 8},
    },
    further={
        "tokenizer": Part(kind=CLIPTokenizer, in_base=True, source=BASE),
        "vae": Part(kind=AutoencoderKL, in_base=True, source=BASE),
        "text_encoder": Part(kind=CLIPTextModel, in_base=True, source=BASE),
    },
    configure=_configure,
)
"""The one release."""
