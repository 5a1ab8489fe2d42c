"""MagicAnimate's start: Stable Diffusion 1.5 for all networks, and AnimateDiff's modules, whose first version fits.

From which weights the motion modules began was not published; that is ours.
"""

from __future__ import annotations

from dataclasses import replace

from referencenet.checkpoints.start import Start
from referencenet.methods.magic_animate import MagicAnimatePipeline
from referencenet.training.beginnings import CONTROLNET, CUT_WRITER, FILM, MOTION_LICENCE, MOTION_SOURCE, motion_file

START = Start(
    published=replace(
        MagicAnimatePipeline.published,
        name="magic_animate.start",
        source=MOTION_SOURCE,
        licence=MOTION_LICENCE,
        files=(motion_file("mm_sd_v15.ckpt"),),
    ),
    grafts={"unet": FILM, "reference_unet": CUT_WRITER, "controlnet": CONTROLNET},
)
