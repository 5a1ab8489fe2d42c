"""AniPortrait's training in two stages (Wei et al. 2024, section 3.2; Zejun-Yang/AniPortrait): as Animate Anyone's.

Published and not kept: batch norms of the guider that go on with a batch's statistics while they are frozen. They take
each sample's own here, since a sample is guided by itself.
"""

from __future__ import annotations

from referencenet.methods.aniportrait import AniPortraitPipeline
from referencenet.training.portraits import PortraitFilmRecipe, image_stage, video_stage

SOURCE = "Zejun-Yang/AniPortrait, train_stage_1.py, train_stage_2.py and configs/train"


class AniPortraitRecipe(PortraitFilmRecipe):
    """`image`: both UNets and the landmark guider, on pairs of frames; `video`: motion modules, on clips of 16."""

    system, pipeline, layout = "aniportrait", AniPortraitPipeline, "ubc"
    stages = {"image": image_stage("pose_guider", source=SOURCE), "video": video_stage(16, source=SOURCE)}


RECIPE = AniPortraitRecipe
