"""MagicPose's training in two stages (Chang et al. 2023, section 3.3; Boese0601/MagicDance).

First the appearance model learns, then that and the pose ControlNet together. Stable Diffusion stays as it is, and
nothing is dropped.
"""

from __future__ import annotations

from functools import partial

from referencenet.methods.magicpose import MagicPosePipeline
from referencenet.sampling.ldm_ddim import LDM_SCHEDULE, LDMScheduler
from referencenet.training.portraits import ControlledFilmRecipe
from referencenet.training.recipes.magicpose.start import START
from referencenet.training.stage import Stage, noise_loss

LOSS = partial(noise_loss, LDMScheduler, **LDM_SCHEDULE)
SOURCE = "Boese0601/MagicDance, train_tiktok.py and its scripts"


class MagicPoseRecipe(ControlledFilmRecipe):
    """`appearance`: the appearance model alone, without poses; `pose`: with the pose ControlNet."""

    system, pipeline, layout = "magicpose", MagicPosePipeline, "tiktok"
    start = START
    stages = {
        "appearance": Stage(
            train=(r"reference_unet\..*",), loss=LOSS, frames=1, absent=("poses",), needs=("target", "pose"),
            source=SOURCE,
        ),
        "pose": Stage(
            train=(r"reference_unet\..*", r"controlnet\..*"), loss=LOSS, frames=1, needs=("target", "pose"),
            source=SOURCE,
        ),
    }  # fmt: skip


RECIPE = MagicPoseRecipe
