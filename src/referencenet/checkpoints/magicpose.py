"""MagicPose's released files as rows: a joint file for either training stage, and what training starts from.

Laid out as latent-diffusion code saves (Boese0601/MagicDance, commit a515a1f): one file, a prefix for each network.
"""

from __future__ import annotations

from dataclasses import replace

from transformers import CLIPTokenizer

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys import ldm
from referencenet.checkpoints.published import Part, PublishedFile, PublishedSet
from referencenet.networks.stable_diffusion import (
    SD15_PARTS,
    TINY_PARTS,
    build_controlnet,
    build_reference_unet,
    build_text_encoder,
    build_unet,
    build_vae,
    parts_config,
)

OTHERS = {
    r"model\.diffusion_model\..*": "the denoiser's",
    r"pose_control_model\..*": "the pose ControlNet's",
    r"(appearance_)?control_model\..*": "the reference UNet's",
    r"first_stage_model\..*": "the autoencoder's",
    r"cond_stage_model\..*": "the text model's",
}
HINTS = {r"(\w+_model\.)?input_hint_block\..*": "copied from a ControlNet, never run in a reference UNet"}


def _beside(*prefixes: str) -> dict[str, str]:
    """What a file holds beside the networks of some prefixes, and whose it is."""
    patterns = [prefix.replace(".", r"\.") for prefix in prefixes]
    return {key: why for key, why in OTHERS.items() if not any(key.startswith(pattern) for pattern in patterns)}


def _appearance(prefix: str) -> KeyMap:
    own = r"(appearance_)?control_model"
    return ldm.unet_keys(prefix, {k: why for k, why in OTHERS.items() if not k.startswith(own)} | HINTS)


def _files(path: str, manifest: str, appearance: str, *, has_pose: bool) -> tuple[PublishedFile, ...]:
    """The networks of one joint file."""
    keymaps = {
        "unet": ldm.unet_keys("model.diffusion_model.", _beside("model.diffusion_model")),
        "reference_unet": _appearance(appearance),
        "controlnet": ldm.controlnet_keys("pose_control_model.", _beside("pose_control_model")),
        "vae": ldm.vae_keys("first_stage_model.", _beside("first_stage_model")),
        "text_encoder": ldm.text_keys("cond_stage_model.transformer.", _beside("cond_stage_model")),
    }
    return tuple(
        PublishedFile(path=path, component=component, keymap=keymap, manifest=manifest)
        for component, keymap in keymaps.items()
        if has_pose or component != "controlnet"
    )


BUILD = {
    "unet": build_unet,
    "reference_unet": build_reference_unet,
    "controlnet": build_controlnet,
    "vae": build_vae,
    "text_encoder": build_text_encoder,
}

PUBLISHED = PublishedSet(
    name="magicpose.joint",
    source="the links in github.com/Boese0601/MagicDance",
    licence="none stated for the weights; code: USC research licence; contains Stable Diffusion 1.5 (OpenRAIL-M)",
    paper="2311.12052",
    files=_files("model_state-110000.th", "magicpose-joint", "appearance_control_model.", has_pose=True),
    build=BUILD,
    base_config=SD15_PARTS,
    tiny_config=TINY_PARTS,
    further={
        "tokenizer": Part(
            kind=CLIPTokenizer,
            in_base=True,
            source="a folder of Stable Diffusion 1.5, or openai/clip-vit-large-patch14",
        )
    },
    configure=parts_config,
)
"""Appearance and pose: the model of the paper."""

PUBLISHED_STAGE1 = replace(
    PUBLISHED,
    name="magicpose.stage1",
    files=_files("model_state-10000.th", "magicpose-appearance-pretraining", "control_model.", has_pose=False),
    build={name: build for name, build in BUILD.items() if name != "controlnet"},
)
"""The first stage: appearance without poses."""

PUBLISHED_START = replace(
    PUBLISHED,
    name="magicpose.start",
    source="huggingface.co/lllyasviel/ControlNet-v1-1, and control_sd15_ini.ckpt of its training tutorial",
    licence="OpenRAIL",
    files=(
        PublishedFile(
            path="control_v11p_sd15_openpose.pth",
            component="controlnet",
            keymap=ldm.controlnet_keys("control_model."),
            manifest="magicpose-pose-controlnet",
        ),
        PublishedFile(
            path="control_sd15_ini.ckpt",
            component="reference_unet",
            keymap=KeyMap(
                renames=[*ldm.prefix_of("model.diffusion_model."), *ldm.unet_keys("control_model.").renames],
                ignored={
                    **ldm.IN_FILE,
                    r"first_stage_model\..*": OTHERS[r"first_stage_model\..*"],
                    r"cond_stage_model\..*": OTHERS[r"cond_stage_model\..*"],
                    r"control_model\.(zero_convs|middle_block_out|input_hint_block)\..*": "a ControlNet's own layers",
                    r"model\.diffusion_model\.(time_embed|input_blocks|middle_block|out)\..*": "the denoiser's",
                },
            ),  # encoder and middle of the ControlNet, decoder of the denoiser
            manifest="magicpose-init",
        ),
        *(
            replace(file, path="control_sd15_ini.ckpt", manifest="magicpose-init")
            for file in PUBLISHED_STAGE1.files
            if file.component != "reference_unet"
        ),
    ),
)
"""What training starts from."""
