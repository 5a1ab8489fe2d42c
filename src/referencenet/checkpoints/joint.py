"""Joint files of MagicDance's fork of latent diffusion: one file with all networks of a system, a prefix for each.

MagicPose (Boese0601/MagicDance, commit a515a1f) and DiffPortrait3D (FreedomGu/DiffPortrait3D, commit 91e2503) save so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from transformers import CLIPTokenizer

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys import ldm
from referencenet.checkpoints.published import Build, Part, PublishedFile
from referencenet.networks.stable_diffusion import (
    build_controlnet,
    build_reference_unet,
    build_text_encoder,
    build_unet,
    build_vae,
)

OTHERS = {
    r"model\.diffusion_model\..*": "the denoiser's",
    r"pose_control_model\..*": "the ControlNet's",
    r"(appearance_)?control_model\..*": "the reference UNet's",
    r"first_stage_model\..*": "the autoencoder's",
    r"cond_stage_model\..*": "the text model's",
}
HINTS = {r"(\w+_model\.)?input_hint_block\..*": "copied from a ControlNet, never run in a reference UNet"}

BUILD: Mapping[str, Build] = {
    "unet": build_unet,
    "reference_unet": build_reference_unet,
    "controlnet": build_controlnet,
    "vae": build_vae,
    "text_encoder": build_text_encoder,
}
"""Makes the networks; a system with another denoiser puts its own in place."""

FURTHER: Mapping[str, Part] = {
    "tokenizer": Part(
        kind=CLIPTokenizer,
        in_base=True,
        source="a folder of Stable Diffusion 1.5, or openai/clip-vit-large-patch14",
    )
}
"""What the files leave out."""


def joint_files(
    path: str,
    manifest: str,
    *,
    appearance: str,
    has_pose: bool = True,
    unet_keys: Callable[..., KeyMap] = ldm.unet_keys,
) -> tuple[PublishedFile, ...]:
    """The networks of one joint file.

    Args:
        path: Of the file.
        manifest: Name of its key list.
        appearance: Prefix of the reference UNet, with its dot.
        has_pose: Whether it has a ControlNet.
        unet_keys: Makes the denoiser's key map, from its prefix and what else the file holds.
    """
    keymaps = {
        "unet": unet_keys("model.diffusion_model.", _beside("model.diffusion_model")),
        "reference_unet": appearance_keys(appearance),
        "controlnet": ldm.controlnet_keys("pose_control_model.", _beside("pose_control_model")),
        "vae": ldm.vae_keys("first_stage_model.", _beside("first_stage_model")),
        "text_encoder": ldm.text_keys("cond_stage_model.transformer.", _beside("cond_stage_model")),
    }
    return tuple(
        PublishedFile(path=path, component=component, keymap=keymap, manifest=manifest)
        for component, keymap in keymaps.items()
        if has_pose or component != "controlnet"
    )


def appearance_keys(prefix: str, *, levels: int = 4, blocks: int = 2) -> KeyMap:
    """A reference UNet's keys; it has a copy of a ControlNet's hint encoder that is never run.

    Args:
        prefix: Of the network in the file, with its dot.
        levels: Resolutions.
        blocks: Residual blocks in each.
    """
    beside = {key: why for key, why in OTHERS.items() if not key.startswith(r"(appearance_)?control_model")}
    return ldm.unet_keys(prefix, beside | HINTS, levels=levels, blocks=blocks)


def _beside(*prefixes: str) -> dict[str, str]:
    """What a file holds beside the networks of some prefixes, and whose it is."""
    patterns = [prefix.replace(".", r"\.") for prefix in prefixes]
    return {key: why for key, why in OTHERS.items() if not any(key.startswith(pattern) for pattern in patterns)}
