"""Hallo's start: Stable Diffusion 1.5 twice, AnimateDiff's modules, and new layers and networks of face and sound."""

from __future__ import annotations

from dataclasses import replace

from referencenet.checkpoints.hallo import DENOISER_KEYS
from referencenet.checkpoints.start import Graft, Start
from referencenet.methods.hallo import HalloPipeline
from referencenet.training.beginnings import MOTION_LICENCE, MOTION_SOURCE, SAME, WRITER, anew, motion_file

START = Start(
    published=replace(
        HalloPipeline.published,
        name="hallo.start",
        source=MOTION_SOURCE,
        licence=MOTION_LICENCE,
        files=(motion_file("motion_module/mm_sd_v15_v2.ckpt", DENOISER_KEYS),),
    ),
    grafts={
        "reference_unet": WRITER,
        "unet": Graft(base=SAME, new={r".*\.audio\..*": "attention to sound, whose outputs are zero"}),
        "face_locator": anew("published so: drawn, and its last layer zero"),
        "face_projection": anew(),
        "audio_projection": anew(),
    },
)
