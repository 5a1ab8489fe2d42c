"""FlashFace's files as tables: `flashface.ckpt`, `sd-v1-vae.pth` and `openai-clip-vit-large-14.pth`.

Layout of ali-vilab/FlashFace, commit fff0f07. Stages of its UNets are numbered through as those of latent-diffusion
code, so a few renames lead to `ldm.py`'s tables. Small networks of the same layout may have other numbers of levels and
residual blocks. `flashface.ckpt` holds two networks that share their middle block, time embedding and head: the
denoiser (`ori_*`) and the reference network (`ref_*`, with `ori_middle`).
"""

from __future__ import annotations

from collections.abc import Mapping

from referencenet.checkpoints.keymap import KeyMap, Split
from referencenet.checkpoints.keys import ldm
from referencenet.checkpoints.keys.ldm import Renames

UNUSED: Mapping[str, str] = {
    r"(encoder|middle|decoder)\..*": "another name of the ori_* tensor, which the published code loads last",
    r"ref_middle\..*": "a middle block that the published code never runs",
}
"""What `flashface.ckpt` holds for neither network."""

RESNET: Renames = [
    (r"(resnets\.\d+)\.layer1\.", r"\1.in_layers."),
    (r"(resnets\.\d+)\.embedding\.", r"\1.emb_layers."),
    (r"(resnets\.\d+)\.layer2\.", r"\1.out_layers."),
    (r"(resnets\.\d+)\.shortcut\.", r"\1.skip_connection."),
    *ldm.RESNET,
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


def _unet(encoder: str, middle: str, decoder: str, levels: int, blocks: int) -> Renames:
    """A UNet of three such parts to diffusers' names."""
    stages: Renames = [
        (r"^time_embedding\.", "time_embed."),
        (r"^head\.", "out."),
        (rf"^{middle}\.", "middle_block."),
        (rf"^{encoder}\.0\.", "input_blocks.0.0."),
        (rf"^{encoder}\.(\d+)\.(weight|bias)$", r"input_blocks.\1.0.op.\2"),
        (rf"^{encoder}\.", "input_blocks."),
        (rf"^{decoder}\.(\d+)\.([12])\.1\.(weight|bias)$", r"output_blocks.\1.\2.conv.\3"),
        (rf"^{decoder}\.", "output_blocks."),
    ]
    places = [*ldm.encoder_renames(levels, blocks), *ldm.decoder_renames(levels, blocks)]
    return [*stages, *places, *RESNET, *STACK]


def denoiser_keys(levels: int = 4, blocks: int = 2) -> KeyMap:
    """`flashface.ckpt` to the denoiser, an `AdditiveUNet`.

    Args:
        levels: Resolutions.
        blocks: Residual blocks in each of the encoder; the decoder has one more.
    """
    return KeyMap(
        renames=_unet("ori_encoder", "ori_middle", "ori_decoder", levels, blocks),
        ignored={**UNUSED, r"ref_(encoder|decoder)\..*": "the reference network's"},
    )


def reference_keys(levels: int = 4, blocks: int = 2) -> KeyMap:
    """`flashface.ckpt` to the reference network, a UNet2DConditionModel.

    Args:
        levels: Resolutions.
        blocks: Residual blocks in each of the encoder; the decoder has one more.
    """
    return KeyMap(
        renames=_unet("ref_encoder", "ori_middle", "ref_decoder", levels, blocks),
        ignored={
            **UNUSED,
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
    """`sd-v1-vae.pth` to AutoencoderKL.

    Args:
        levels: Resolutions.
        blocks: Residual blocks in each of the encoder; the decoder has one more.
    """
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
