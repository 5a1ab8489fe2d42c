"""Tiny base models as single files in the original layout, written from tiny pipelines of diffusers: the way back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from referencenet.checkpoints.keys.ldm import RESNET, decoder_renames, encoder_renames
from tiny import tiny

LEVELS, BLOCKS, VAE_LEVELS = 2, 1, 4
"""Of the tiny UNets and autoencoders."""

FAMILIES = ("sd", "sd2", "sdxl", "inpaint9", "sdxl_inpaint9")
"""Kinds of tiny pipelines that are written here."""

TEXT = (
    ("encoder.layers.", "transformer.resblocks."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.out_proj.", ".attn.out_proj."),
    ("final_layer_norm.", "ln_final."),
    ("embeddings.token_embedding.", "token_embedding."),
    ("embeddings.position_embedding.weight", "positional_embedding"),
)
"""Names of CLIP's text model in transformers, and in OpenCLIP."""


def write_single(kind: str, folder: Path) -> tuple[Path, Path, Any]:
    """Write a tiny pipeline twice: as a single file, and as a folder that has its configuration.

    Returns:
        The file, the folder, and the pipeline.
    """
    pipe = tiny(kind).pipe
    file = folder / f"{kind}.safetensors"
    save_file({key: tensor.contiguous().clone() for key, tensor in original_state(pipe).items()}, file)
    pipe.save_pretrained(folder / kind)
    return file, folder / kind, pipe


def original_state(pipe: Any) -> dict[str, Tensor]:
    """All weights of a pipeline under the names of the original implementation."""
    found = {f"model.diffusion_model.{key}": tensor for key, tensor in unet_state(pipe.unet.state_dict()).items()}
    found |= {f"first_stage_model.{key}": tensor for key, tensor in vae_state(pipe.vae.state_dict()).items()}
    first, second = pipe.text_encoder.state_dict(), getattr(pipe, "text_encoder_2", None)
    plain = {f"transformer.text_model.{key.removeprefix('text_model.')}": tensor for key, tensor in first.items()}
    if second is not None:
        found |= {f"conditioner.embedders.0.{key}": tensor for key, tensor in plain.items()}
        own = open_clip_state(second.state_dict())
        return found | {f"conditioner.embedders.1.model.{key}": tensor for key, tensor in own.items()}
    if pipe.unet.config.use_linear_projection:  # Stable Diffusion 2
        return found | {f"cond_stage_model.model.{key}": tensor for key, tensor in open_clip_state(first).items()}
    return found | {f"cond_stage_model.{key}": tensor for key, tensor in plain.items()}


def unet_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A UNet's weights under their original names."""
    attends = {tuple(key.split(".")[:2]) for key in state if ".attentions." in key}
    renames = encoder_renames(LEVELS, BLOCKS) + decoder_renames(LEVELS, BLOCKS)
    places = [(place, _literal(original, attends)) for original, place in renames]
    places += [("add_embedding.linear_1.", "label_emb.0.0."), ("add_embedding.linear_2.", "label_emb.0.2.")]
    inner = [
        (ours.replace(r"\1.", "."), re.sub(r"^\(.*?\)", "", original).replace("\\", "")) for original, ours in RESNET
    ]
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        place, original = next(pair for pair in places if key.startswith(pair[0]))
        rest = key.removeprefix(place)
        for ours, published in inner if "resnets" in place else ():
            rest = f".{rest}".replace(ours, published).removeprefix(".")
        found[original + rest] = tensor
    return found


def _literal(pattern: str, attends: set[tuple[str, ...]]) -> str:
    """What a pattern of the key tables matches; a sampler stands one place later where the level has attention."""
    literal = pattern.removeprefix("^").replace("\\", "")
    match = re.match(r"output_blocks\.(\d+)\.\[12\]", literal)
    level = str(int(match[1]) // (BLOCKS + 1)) if match else ""
    return literal.replace("[12]", "2" if ("up_blocks", level) in attends else "1")


def vae_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder's weights under their original names."""
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = re.sub(r"encoder\.down_blocks\.(\d+)\.", r"encoder.down.\1.", key)
        name = re.sub(r"decoder\.up_blocks\.(\d+)\.", lambda m: f"decoder.up.{VAE_LEVELS - 1 - int(m[1])}.", name)
        name = re.sub(r"((?:down|up)\.\d+)\.resnets\.", r"\1.block.", name)
        name = name.replace("downsamplers.0.conv.", "downsample.conv.").replace("upsamplers.0.conv.", "upsample.conv.")
        for ours, published in (("resnets.0", "block_1"), ("resnets.1", "block_2"), ("attentions.0", "attn_1")):
            name = name.replace(f"mid_block.{ours}.", f"mid.{published}.")
        name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "attn_1" in name:
            for ours, published in (
                ("group_norm", "norm"),
                ("to_out.0", "proj_out"),
                ("to_q", "q"),
                ("to_k", "k"),
                ("to_v", "v"),
            ):
                name = name.replace(f"attn_1.{ours}.", f"attn_1.{published}.")
            if name.endswith("weight") and ".norm." not in name:
                tensor = tensor[:, :, None, None]
        found[name] = tensor
    return found


def open_clip_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text model's weights under OpenCLIP's names, queries, keys and values in one tensor."""
    found: dict[str, Tensor] = {}
    for key, tensor in _joined(state):
        name = key.removeprefix("text_model.")
        for ours, published in TEXT:
            name = name.replace(ours, published)
        found["text_projection" if name == "text_projection.weight" else name] = tensor
    if "text_projection" in found:
        found["text_projection"] = found["text_projection"].T
    return found


def _joined(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in state.items():
        if ".q_proj." in key:
            parts = [state[key.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            yield key.replace(".self_attn.q_proj.", ".attn.in_proj_"), torch.cat(parts)
        elif not re.search(r"\.[kv]_proj\.", key):
            yield key, tensor
