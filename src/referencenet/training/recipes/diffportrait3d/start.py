"""DiffPortrait3D's start: Stable Diffusion 1.5 three times, and AnimateDiff's modules for those between the views.

The paper says that view modules begin from AnimateDiff; which file, and how the modules behind samplers begin, which
AnimateDiff does not have, is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from diffusers import AutoencoderKL
from transformers import CLIPTextModel

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.motion_keys import MOTION_KEYS
from referencenet.checkpoints.published import Part, PublishedFile
from referencenet.checkpoints.start import Graft, Start
from referencenet.methods.diffportrait3d import DiffPortrait3DPipeline
from referencenet.training.beginnings import CONTROLNET, MOTION_LICENCE, MOTION_SOURCE, SAME, WRITER, motion_file

BASE = "a folder of Stable Diffusion 1.5"


def fitted(config: Mapping[str, Any]) -> Sequence[PublishedFile]:
    """AnimateDiff's file; here the last module of an up block stands before its sampler, and is called so."""
    last = config["unet"]["layers_per_block"]
    levels = "|".join(str(level) for level in range(len(config["unet"]["block_out_channels"]) - 1))
    moved = (rf"^(up_blocks\.(?:{levels}))\.motion_modules\.{last}\.", r"\1.upsamplers.0.motion_modules.0.")
    return (motion_file(keymap=KeyMap(renames=[*MOTION_KEYS.renames, moved], ignored=MOTION_KEYS.ignored)),)


START = Start(
    published=replace(
        DiffPortrait3DPipeline.published,
        name="diffportrait3d.start",
        source=MOTION_SOURCE,
        licence=MOTION_LICENCE,
        files=(motion_file(),),
        further={
            **DiffPortrait3DPipeline.published.further,
            "vae": Part(kind=AutoencoderKL, in_base=True, source=BASE),
            "text_encoder": Part(kind=CLIPTextModel, in_base=True, source=BASE),
        },
    ),
    grafts={
        "unet": Graft(
            base=SAME,
            new={r".*samplers\.0\.motion_modules\..*": "AnimateDiff has no module behind a sampler"},
            zero=[r".*samplers\.0\.motion_modules\.\d+\.proj_out\..*"],
        ),
        "reference_unet": WRITER,
        "controlnet": CONTROLNET,
    },
    fitted=fitted,
)
