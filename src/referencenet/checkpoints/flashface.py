"""FlashFace's released files as tables: `flashface.ckpt`, `sd-v1-vae.pth` and `openai-clip-vit-large-14.pth`.

One file holds two networks that share their middle block, time embedding and head: the denoiser (`ori_*`) and the
reference network (`ref_*`, with `ori_middle`). Layout of ali-vilab/FlashFace, commit fff0f07. Each network has four
levels with two residual blocks, three in the decoder; stages are numbered through, so the tables count them out. Small
networks of the same layout may have others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from referencenet.checkpoints.keymap import CheckpointError, KeyMap, Split

ALIAS = "another name of the ori_* tensor, which the published code loads last"
DEAD = "a middle block that the published code never runs"

Renames = list[tuple[str, str]]

RESNET: Renames = [
    (r"(resnets\.\d+)\.layer1\.0\.", r"\1.norm1."),
    (r"(resnets\.\d+)\.layer1\.2\.", r"\1.conv1."),
    (r"(resnets\.\d+)\.embedding\.1\.", r"\1.time_emb_proj."),
    (r"(resnets\.\d+)\.layer2\.0\.", r"\1.norm2."),
    (r"(resnets\.\d+)\.layer2\.3\.", r"\1.conv2."),
    (r"(resnets\.\d+)\.shortcut\.", r"\1.conv_shortcut."),
]
"""Inside a residual block; its place has been renamed before."""

BLOCK: Renames = [
    (r"\.self_attn\.self_attn_first\.", ".attn1.reference."),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"(\.attn1\.reference|\.attn[12])\.([qkv])\.", r"\1.to_\2."),
    (r"(\.attn1\.reference|\.attn[12])\.o\.", r"\1.to_out.0."),
    (r"\.ffn\.0\.proj\.", ".ff.net.0.proj."),
    (r"\.ffn\.2\.", ".ff.net.2."),
]
"""Inside a transformer block."""

STACK: Renames = [
    (r"(attentions\.\d+)\.norm1\.", r"\1.norm."),  # the stack's group norm, not its block's layer norm
    (r"(attentions\.\d+)\.conv1\.", r"\1.proj_in."),
    (r"(attentions\.\d+)\.conv2\.", r"\1.proj_out."),
    (r"(attentions\.\d+)\.blocks\.", r"\1.transformer_blocks."),
    *BLOCK,
]
"""Inside a stack of transformer blocks."""


def _places(encoder: str, middle: str, decoder: str, levels: int, blocks: int) -> Renames:
    """Numbered stages to diffusers' blocks."""
    pairs: Renames = [
        (r"^time_embedding\.0\.", "time_embedding.linear_1."),
        (r"^time_embedding\.2\.", "time_embedding.linear_2."),
        (r"^head\.0\.", "conv_norm_out."),
        (r"^head\.2\.", "conv_out."),
        (rf"^{encoder}\.0\.", "conv_in."),
        (rf"^{middle}\.0\.", "mid_block.resnets.0."),
        (rf"^{middle}\.1\.", "mid_block.attentions.0."),
        (rf"^{middle}\.2\.", "mid_block.resnets.1."),
    ]
    for level in range(levels):
        for j in range(blocks):
            place = rf"^{encoder}\.{1 + (blocks + 1) * level + j}"
            pairs.append((rf"{place}\.0\.", f"down_blocks.{level}.resnets.{j}."))
            pairs.append((rf"{place}\.1\.", f"down_blocks.{level}.attentions.{j}."))
        sampler = rf"^{encoder}\.{(blocks + 1) * (level + 1)}\.(weight|bias)$"
        pairs.append((sampler, rf"down_blocks.{level}.downsamplers.0.conv.\1"))
        # a block without attention has its upsampler one place earlier
        sampler = rf"^{decoder}\.{(blocks + 1) * level + blocks}\.[12]\.1\.(weight|bias)$"
        pairs.append((sampler, rf"up_blocks.{level}.upsamplers.0.conv.\1"))
        for j in range(blocks + 1):
            place = rf"^{decoder}\.{(blocks + 1) * level + j}"
            pairs.append((rf"{place}\.0\.", f"up_blocks.{level}.resnets.{j}."))
            pairs.append((rf"{place}\.1\.", f"up_blocks.{level}.attentions.{j}."))
    return pairs


def denoiser_keys(levels: int = 4, blocks: int = 2) -> KeyMap:
    """`flashface.ckpt` to the denoiser, an `AdditiveUNet`, for so many levels and residual blocks in each."""
    return KeyMap(
        renames=[*_places("ori_encoder", "ori_middle", "ori_decoder", levels, blocks), *RESNET, *STACK],
        ignored={
            r"(encoder|middle|decoder)\..*": ALIAS,
            r"ref_middle\..*": DEAD,
            r"ref_(encoder|decoder)\..*": "the reference network's",
        },
    )


def reference_keys(levels: int = 4, blocks: int = 2) -> KeyMap:
    """`flashface.ckpt` to the reference network, a UNet2DConditionModel."""
    return KeyMap(
        renames=[*_places("ref_encoder", "ori_middle", "ref_decoder", levels, blocks), *RESNET, *STACK],
        ignored={
            r"(encoder|middle|decoder)\..*": ALIAS,
            r"ref_middle\..*": DEAD,
            r"ori_(encoder|decoder)\..*": "the denoiser's",
            r"ori_middle\..*\.self_attn_first\..*": "the denoiser's second attention, which a writing pass leaves out",
        },
    )


def _vae_places(levels: int, blocks: int) -> Renames:
    """Stages of the autoencoder, numbered through, to diffusers' blocks."""
    pairs: Renames = [(r"^conv1\.", "quant_conv."), (r"^conv2\.", "post_quant_conv.")]
    for level in range(levels):
        first_down, first_up = (blocks + 1) * level, (blocks + 2) * level
        down, up = r"^encoder\.downsamples\.", r"^decoder\.upsamples\."
        for j in range(blocks):
            pairs.append((rf"{down}{first_down + j}\.", f"encoder.down_blocks.{level}.resnets.{j}."))
        for j in range(blocks + 1):
            pairs.append((rf"{up}{first_up + j}\.", f"decoder.up_blocks.{level}.resnets.{j}."))
        sampler = r"\.resample\.1\."
        pairs.append((rf"{down}{first_down + blocks}{sampler}", f"encoder.down_blocks.{level}.downsamplers.0.conv."))
        pairs.append((rf"{up}{first_up + blocks + 1}{sampler}", f"decoder.up_blocks.{level}.upsamplers.0.conv."))
    return pairs


def vae_keys(levels: int = 4, blocks: int = 2) -> KeyMap:
    """`sd-v1-vae.pth` to AutoencoderKL."""
    return KeyMap(
        renames=[
            *_vae_places(levels, blocks),
            (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
            (r"^(encoder|decoder)\.head\.0\.", r"\1.conv_norm_out."),
            (r"^(encoder|decoder)\.head\.2\.", r"\1.conv_out."),
            (r"\.middle\.0\.", ".mid_block.resnets.0."),
            (r"\.middle\.1\.norm\.", ".mid_block.attentions.0.group_norm."),
            (r"\.middle\.1\.proj\.", ".mid_block.attentions.0.to_out.0."),
            (r"\.middle\.1\.", ".mid_block.attentions.0."),
            (r"\.middle\.2\.", ".mid_block.resnets.1."),
            (r"\.residual\.0\.", ".norm1."),
            (r"\.residual\.2\.", ".conv1."),
            (r"\.residual\.3\.", ".norm2."),
            (r"\.residual\.6\.", ".conv2."),
            (r"\.shortcut\.", ".conv_shortcut."),
        ],
        splits=[
            Split(
                pattern=r"(.*\.attentions\.0)\.to_qkv\.(weight|bias)",
                into=(r"\1.to_q.\2", r"\1.to_k.\2", r"\1.to_v.\2"),
            )
        ],
        squeezed=[r".*\.attentions\.0\.(to_qkv|to_out\.0)\.weight"],
    )


TEXT_KEYS = KeyMap(
    renames=[
        (r"^textual\.", ""),
        (r"^token_embedding\.", "embeddings.token_embedding."),
        (r"^pos_embedding$", "embeddings.position_embedding.weight"),
        (r"^norm\.", "final_layer_norm."),
        (r"^transformer\.(\d+)\.", r"encoder.layers.\1."),
        (r"\.norm1\.", ".layer_norm1."),
        (r"\.norm2\.", ".layer_norm2."),
        (r"\.attn\.proj\.", ".self_attn.out_proj."),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.2\.", ".mlp.fc2."),
    ],
    splits=[
        Split(
            pattern=r"(.*)\.attn\.to_qkv\.(weight|bias)",
            into=(r"\1.self_attn.q_proj.\2", r"\1.self_attn.k_proj.\2", r"\1.self_attn.v_proj.\2"),
        )
    ],
    unbatched=[r"embeddings\.position_embedding\.weight"],
    ignored={
        r"visual\..*": "CLIP's picture half, which FlashFace does not use",
        r"log_scale": "CLIP's training temperature",
        r"(textual\.)?head": "CLIP's projection: FlashFace reads the last hidden states before it",
    },
)
"""`openai-clip-vit-large-14.pth` to CLIPTextModel."""


def unet_config(*, dim: int, dim_mult: Sequence[int], context_dim: int, num_heads: int = 8, num_res_blocks: int = 2,
                attn_scales: Sequence[float] = (1 / 4, 1 / 2, 1)) -> dict[str, Any]:  # fmt: skip
    """What both networks have in common in diffusers' words; the number of inputs is left out.

    Args:
        dim: Width of the first level.
        dim_mult: Of every level.
        context_dim: Channels of the text.
        num_heads: Of every attention.
        num_res_blocks: Per level.
        attn_scales: Scales of the levels that have attention, the first level being 1.
    """
    attends = [1 / 2**level in attn_scales for level in range(len(dim_mult))]
    return {
        "block_out_channels": tuple(dim * factor for factor in dim_mult),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        "layers_per_block": num_res_blocks,
        "cross_attention_dim": context_dim,
        "attention_head_dim": num_heads,  # diffusers' name for the number of heads in Stable Diffusion 1
        "norm_eps": 1e-6,  # Stable Diffusion has 1e-5 in its residual blocks and before its output
        "sample_size": 96,  # 768 pixels, as trained
    }


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
        raise CheckpointError(f"this is no FlashFace checkpoint: it has no {error}. Give flashface.ckpt.") from error
    return unet_config(dim=widths[0], dim_mult=[w // widths[0] for w in widths], context_dim=context_dim)
