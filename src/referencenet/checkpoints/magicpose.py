"""MagicPose's released files as rows: a joint file for either training stage, and what training starts from."""

from __future__ import annotations

from dataclasses import replace

from referencenet.checkpoints.joint import BUILD, FURTHER, OTHERS, joint_files
from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys import ldm
from referencenet.checkpoints.published import PublishedFile, PublishedSet
from referencenet.networks.stable_diffusion import SD15_PARTS, TINY_PARTS, parts_config

PUBLISHED = PublishedSet(
    name="magicpose.joint",
    source="the links in github.com/Boese0601/MagicDance",
    licence="none stated for the weights; code: USC research licence; contains Stable Diffusion 1.5 (OpenRAIL-M)",
    paper="2311.12052",
    files=joint_files("model_state-110000.th", "magicpose-joint", appearance="appearance_control_model."),
    build=BUILD,
    base_config=SD15_PARTS,
    tiny_config=TINY_PARTS,
    further=FURTHER,
    configure=parts_config,
)
"""Appearance and pose: the model of the paper."""

PUBLISHED_STAGE1 = replace(
    PUBLISHED,
    name="magicpose.stage1",
    files=joint_files(
        "model_state-10000.th", "magicpose-appearance-pretraining", appearance="control_model.", has_pose=False
    ),
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
