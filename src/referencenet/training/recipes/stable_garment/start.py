"""StableGarment's start: everything is Stable Diffusion 1.5's, the garment encoder and the ControlNet as its copies."""

from __future__ import annotations

from dataclasses import replace

from referencenet.checkpoints.start import Graft, Start
from referencenet.methods.stable_garment import StableGarmentTryOnPipeline
from referencenet.training.beginnings import CUT_WRITER, ENCODER_ONLY, SAME, anew

START = Start(
    published=replace(StableGarmentTryOnPipeline.published, name="stable_garment.start", files=()),
    grafts={
        "reference_unet": CUT_WRITER,
        "controlnet": Graft(
            base=SAME, left_out=ENCODER_ONLY,
            new={r"controlnet_(down_blocks|mid_block)\..*": "the outputs, which are zero"},
        ),
        "guider": anew("drawn, and both its last layers zero"),
    },
)  # fmt: skip
