"""MagicAnimate's training in two stages, from the paper (Xu et al. 2023, section 3): no trainer was ever published.

Of its image-video joint training only the clips are here: how often single pictures took their place was not told.
"""

from __future__ import annotations

from functools import partial

from diffusers import DDIMScheduler

from referencenet.methods.magic_animate import CLIP, SCHEDULER, MagicAnimatePipeline
from referencenet.training.drops import Drop
from referencenet.training.portraits import ControlledFilmRecipe
from referencenet.training.recipes.magic_animate.start import START
from referencenet.training.stage import Stage, noise_loss

LOSS = partial(noise_loss, DDIMScheduler, **SCHEDULER)
DROPS = {"guidance": Drop(rate=0.0, reads=None, blind=("prompt",))}
"""Ours and off: what inference shows its unconditional pass."""
NEEDS = "target", "dense"


class MagicAnimateRecipe(ControlledFilmRecipe):
    """`image`: appearance encoder and DensePose ControlNet, on pairs of frames; `video`: motion modules, on clips."""

    system, pipeline, layout = "magic_animate", MagicAnimatePipeline, "tiktok"
    start = START
    driving, has_scale = "dense", True
    stages = {
        "image": Stage(
            train=(r"reference_unet\..*", r"controlnet\..*"),
            loss=LOSS,
            drops=DROPS,
            frames=1,
            temporal=False,
            needs=NEEDS,
            source="arXiv 2311.16498, section 3.3; rate, steps and batch were not published",
        ),
        "video": Stage(
            train=(r"unet\..*motion_modules.*",),
            loss=LOSS,
            drops=DROPS,
            frames=CLIP,
            needs=NEEDS,
            source="arXiv 2311.16498, section 3.3, without the joint training on pictures",
        ),
    }


RECIPE = MagicAnimateRecipe
