"""AniPortrait's training in two stages (Wei et al. 2024, section 3.2; Zejun-Yang/AniPortrait): as Animate Anyone's.

Published and not kept: batch norms of the guider that go on with a batch's statistics while they are frozen. They take
each sample's own here, since a sample is guided by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from referencenet.inputs import read_array
from referencenet.media.images import read_image
from referencenet.methods.aniportrait import AniPortraitPipeline
from referencenet.preprocess.face_mesh import draw_face_mesh
from referencenet.training.data.sample import Sample
from referencenet.training.portraits import PortraitFilmRecipe, image_stage, video_stage
from referencenet.training.recipes.aniportrait.start import START

SOURCE = "Zejun-Yang/AniPortrait, train_stage_1.py, train_stage_2.py and configs/train"
NEEDS = "frames", "landmarks"


class AniPortraitRecipe(PortraitFilmRecipe):
    """`image`: both UNets and the landmark guider, on pairs of frames; `video`: motion modules, on clips of 16."""

    system, pipeline, layout = "aniportrait", AniPortraitPipeline, "aniportrait"
    start = START
    stages = {
        "image": image_stage("pose_guider", source=SOURCE, needs=NEEDS),
        "video": video_stage(16, source=SOURCE, needs=NEEDS),
    }

    def length(self, sample: Sample) -> int:
        """Frames of a sample."""
        return len(sample.frames)

    def frames_at(self, sample: Sample, places: Sequence[int]) -> list[Image.Image]:
        """Those, by their numbers."""
        return [read_image(sample.frames[place]) for place in places]

    def drawings_at(self, sample: Sample, places: Sequence[int]) -> list[Image.Image]:
        """Their landmarks as drawings."""
        found = [read_array(sample.landmarks[place], "landmarks of a face") for place in places]
        return [Image.fromarray(draw_face_mesh(landmarks, *self.size)) for landmarks in found]


RECIPE = AniPortraitRecipe
