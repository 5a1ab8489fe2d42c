"""AniPortrait's start: Stable Diffusion 1.5 twice, AnimateDiff's modules, and a new guider."""

from __future__ import annotations

from dataclasses import replace

from referencenet.checkpoints.start import Start
from referencenet.methods.aniportrait import AniPortraitPipeline
from referencenet.training.beginnings import FILM, MOTION_LICENCE, MOTION_SOURCE, WRITER, anew, motion_file

START = Start(
    published=replace(
        AniPortraitPipeline.published,
        name="aniportrait.start",
        source=MOTION_SOURCE,
        licence=MOTION_LICENCE,
        files=(motion_file(),),
    ),
    grafts={
        "reference_unet": WRITER,
        "unet": FILM,
        "pose_guider": anew("drawn by PyTorch's rule, published by He's; its last layer is zero"),
    },
)
