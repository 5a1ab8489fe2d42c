"""Latent-diffusion checkpoints (CompVis, and ControlNet's fork): one file with UNet, ControlNet, autoencoder and text.

MagicPose, DiffPortrait3D and Stable Diffusion's own files are laid out so. Blocks are numbered through, whatever level
they are of, so the tables count them out; networks with other numbers of levels or blocks have tables too. A key map
takes names with their prefix in the file, or without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from referencenet.checkpoints.keymap import KeyMap

Renames = list[tuple[str, str]]

SCHEDULE = r"(betas|logvar|alphas_cumprod(_prev)?|(sqrt|log)(_one_minus|_recip|_recipm1)?_alphas_cumprod|posterior_\w+)"
"""Schedule buffers beside the networks."""

IN_FILE: Mapping[str, str] = {SCHEDULE: "the noise schedule, which the scheduler computes"}
"""What every such file holds beside its networks, and why it is left out."""

RESNET: Renames = [
    (r"(resnets\.\d+)\.in_layers\.0\.", r"\1.norm1."),
    (r"(resnets\.\d+)\.in_layers\.2\.", r"\1.conv1."),
    (r"(resnets\.\d+)\.emb_layers\.1\.", r"\1.time_emb_proj."),
    (r"(resnets\.\d+)\.out_layers\.0\.", r"\1.norm2."),
    (r"(resnets\.\d+)\.out_layers\.3\.", r"\1.conv2."),
    (r"(resnets\.\d+)\.skip_connection\.", r"\1.conv_shortcut."),
]
"""Inside a residual block of a UNet; its place has been renamed before. Transformers have diffusers' names already."""


def prefix_of(prefix: str) -> Renames:
    """Takes a network's prefix away.

    Args:
        prefix: As in the file, with its dot.
    """
    return [(rf"^{re.escape(prefix)}", "")]


def encoder_renames(levels: int = 4, blocks: int = 2) -> Renames:
    """Time embedding, encoder and middle of a UNet or ControlNet.

    Args:
        levels: Resolutions.
        blocks: Residual blocks in each.
    """
    pairs: Renames = [
        (r"^time_embed\.0\.", "time_embedding.linear_1."),
        (r"^time_embed\.2\.", "time_embedding.linear_2."),
        (r"^input_blocks\.0\.0\.", "conv_in."),
        (r"^middle_block\.0\.", "mid_block.resnets.0."),
        (r"^middle_block\.1\.", "mid_block.attentions.0."),
        (r"^middle_block\.2\.", "mid_block.resnets.1."),
    ]
    for level in range(levels):
        first = 1 + (blocks + 1) * level
        for j in range(blocks):
            pairs.append((rf"^input_blocks\.{first + j}\.0\.", f"down_blocks.{level}.resnets.{j}."))
            pairs.append((rf"^input_blocks\.{first + j}\.1\.", f"down_blocks.{level}.attentions.{j}."))
        pairs.append((rf"^input_blocks\.{first + blocks}\.0\.op\.", f"down_blocks.{level}.downsamplers.0.conv."))
    return pairs


def decoder_renames(levels: int = 4, blocks: int = 2) -> Renames:
    """Decoder and head of a UNet.

    Args:
        levels: Resolutions.
        blocks: Residual blocks in each of the encoder; the decoder has one more.
    """
    pairs: Renames = [(r"^out\.0\.", "conv_norm_out."), (r"^out\.2\.", "conv_out.")]
    for level in range(levels):
        first = (blocks + 1) * level
        # a block without attention has its upsampler one place earlier
        sampler = rf"^output_blocks\.{first + blocks}\.[12]\.conv\."
        pairs.append((sampler, f"up_blocks.{level}.upsamplers.0.conv."))
        for j in range(blocks + 1):
            pairs.append((rf"^output_blocks\.{first + j}\.0\.", f"up_blocks.{level}.resnets.{j}."))
            pairs.append((rf"^output_blocks\.{first + j}\.1\.", f"up_blocks.{level}.attentions.{j}."))
    return pairs


def unet_keys(prefix: str, ignored: Mapping[str, str] | None = None, *, levels: int = 4, blocks: int = 2) -> KeyMap:
    """A UNet's keys to UNet2DConditionModel.

    Args:
        prefix: Of the UNet in the file, with its dot.
        ignored: What else the file holds, and why it is left out.
        levels: Resolutions.
        blocks: Residual blocks in each.
    """
    places = [*encoder_renames(levels, blocks), *decoder_renames(levels, blocks)]
    return KeyMap(renames=[*prefix_of(prefix), *places, *RESNET], ignored={**IN_FILE, **(ignored or {})})


def controlnet_keys(
    prefix: str, ignored: Mapping[str, str] | None = None, *, levels: int = 4, blocks: int = 2, hints: int = 6
) -> KeyMap:
    """A ControlNet's keys to ControlNetModel.

    Args:
        prefix: Of the ControlNet in the file, with its dot.
        ignored: What else the file holds, and why it is left out.
        levels: Resolutions.
        blocks: Residual blocks in each.
        hints: Convolutions between the first and the last of the condition's embedding.
    """
    embedding = "controlnet_cond_embedding"
    hint = [(rf"^input_hint_block\.{2 * (i + 1)}\.", f"{embedding}.blocks.{i}.") for i in range(hints)]
    own: Renames = [
        (r"^input_hint_block\.0\.", f"{embedding}.conv_in."),
        (rf"^input_hint_block\.{2 * (hints + 1)}\.", f"{embedding}.conv_out."),
        *hint,
        (r"^zero_convs\.(\d+)\.0\.", r"controlnet_down_blocks.\1."),
        (r"^middle_block_out\.0\.", "controlnet_mid_block."),
    ]
    places = encoder_renames(levels, blocks)
    return KeyMap(renames=[*prefix_of(prefix), *own, *places, *RESNET], ignored={**IN_FILE, **(ignored or {})})


def vae_keys(prefix: str, ignored: Mapping[str, str] | None = None, *, levels: int = 4) -> KeyMap:
    """An autoencoder's keys to AutoencoderKL.

    Args:
        prefix: Of the autoencoder in the file, with its dot.
        ignored: What else the file holds, and why it is left out.
        levels: Resolutions.
    """
    up = [
        (rf"^decoder\.up\.{i}\.(block|upsample)", rf"decoder.up_blocks.{levels - 1 - i}.\1") for i in range(levels)
    ]  # numbered from the largest pictures on; diffusers counts from the smallest
    renames: Renames = [
        *prefix_of(prefix),
        *up,
        (r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1."),
        (r"(_blocks\.\d+)\.block\.(\d+)\.", r"\1.resnets.\2."),
        (r"(_blocks\.\d+)\.downsample\.conv\.", r"\1.downsamplers.0.conv."),
        (r"(_blocks\.\d+)\.upsample\.conv\.", r"\1.upsamplers.0.conv."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
        (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
        (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"\.norm_out\.", ".conv_norm_out."),
    ]
    attention = r".*\.attentions\.0\.(to_[qkv]|to_out\.0)\.weight"
    return KeyMap(renames=renames, squeezed=[attention], ignored={**IN_FILE, **(ignored or {})})


def text_keys(prefix: str, ignored: Mapping[str, str] | None = None) -> KeyMap:
    """CLIP's text model's keys to CLIPTextModel.

    Args:
        prefix: Of the text model in the file, with its dot.
        ignored: What else the file holds, and why it is left out.
    """
    position_ids = {r".*embeddings\.position_ids": "a count from 0 on that older files store"}
    return KeyMap(
        renames=[*prefix_of(prefix), (r"^text_model\.", "")],
        ignored={**IN_FILE, **position_ids, **(ignored or {})},
    )


def unet_config(
    *,
    model_channels: int,
    channel_mult: Sequence[int],
    num_res_blocks: int,
    attention_resolutions: Sequence[int],
    num_heads: int,
    context_dim: int,
    in_channels: int = 4,
    out_channels: int = 4,
) -> dict[str, Any]:
    """A UNet's or ControlNet's configuration in diffusers' words.

    Args:
        model_channels: Width of the first level.
        channel_mult: Of every level.
        num_res_blocks: Per level.
        attention_resolutions: How much smaller than the latents those levels are that have attention.
        num_heads: Of every attention.
        context_dim: Channels of the context.
        in_channels: Of the noisy latents.
        out_channels: Of the prediction.
    """
    attends = [2**level in attention_resolutions for level in range(len(channel_mult))]
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "block_out_channels": tuple(model_channels * factor for factor in channel_mult),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        "layers_per_block": num_res_blocks,
        "cross_attention_dim": context_dim,
        "attention_head_dim": num_heads,  # diffusers' name for the number of heads in Stable Diffusion 1
    }
