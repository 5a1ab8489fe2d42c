"""Hallo's start: Stable Diffusion 1.5 twice, AnimateDiff's modules, and new layers and networks of face and sound."""

from __future__ import annotations

from referencenet.checkpoints.hallo import PUBLISHED_START
from referencenet.checkpoints.start import Graft, Start
from referencenet.training.beginnings import SAME, WRITER, anew

START = Start(
    published=PUBLISHED_START,
    grafts={
        "reference_unet": WRITER,
        "unet": Graft(base=SAME, new={r".*\.audio\..*": "attention to sound, whose outputs are zero"}),
        "face_locator": anew("published so: drawn, and its last layer zero"),
        "face_projection": anew(),
        "audio_projection": anew(),
    },
)
