"""Animate Anyone's training in two stages (Hu et al. 2023, section 3.4), as MooreThreads published it.

The face re-enactment model was published without its training; nothing of it is guessed here.
"""

from __future__ import annotations

from referencenet.methods.animate_anyone import AnimateAnyonePipeline
from referencenet.training.portraits import PortraitFilmRecipe, image_stage, video_stage
from referencenet.training.recipes.animate_anyone.start import START

SOURCE = "MooreThreads/Moore-AnimateAnyone, train_stage_1.py, train_stage_2.py and configs/train"


class AnimateAnyoneRecipe(PortraitFilmRecipe):
    """`image`: both UNets and the pose guider, on pairs of frames; `video`: motion modules, on clips of 24."""

    system, pipeline, layout = "animate_anyone", AnimateAnyonePipeline, "ubc"
    start = START
    published_size = (768, 768)
    stages = {"image": image_stage("pose_guider", source=SOURCE), "video": video_stage(24, source=SOURCE)}


RECIPE = AnimateAnyoneRecipe
