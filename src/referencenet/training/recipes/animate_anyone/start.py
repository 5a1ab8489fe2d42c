"""Animate Anyone's start: a base for both UNets, AnimateDiff's modules, and a ControlNet's encoder of skeletons.

The published training takes both UNets from sd-image-variations, which has the same layout as Stable Diffusion 1.5.
"""

from __future__ import annotations

from dataclasses import replace

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.published import PublishedFile
from referencenet.checkpoints.start import Graft, Start
from referencenet.methods.animate_anyone import AnimateAnyonePipeline
from referencenet.training.beginnings import FILM, MOTION_LICENCE, MOTION_SOURCE, WRITER, motion_file

HINTS = KeyMap(
    renames=[(r"^controlnet_cond_embedding\.", "")],
    ignored={
        r"controlnet_cond_embedding\.conv_out\..*": "begins at zero, as published",
        r"(?!controlnet_cond_embedding\.).*": "the ControlNet itself",
    },
)

START = Start(
    published=replace(
        AnimateAnyonePipeline.published,
        name="animate_anyone.start",
        source=f"{MOTION_SOURCE} and huggingface.co/lllyasviel/control_v11p_sd15_openpose",
        licence=MOTION_LICENCE,
        files=(
            motion_file(),
            PublishedFile(
                path="control_v11p_sd15_openpose/diffusion_pytorch_model.bin", component="pose_guider", keymap=HINTS
            ),
        ),
    ),
    grafts={
        "reference_unet": WRITER,
        "unet": FILM,
        "pose_guider": Graft(new={r"conv_out\..*": "zero, as published"}),
    },
)
