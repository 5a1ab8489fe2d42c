"""Parts2Whole's start: Stable Diffusion 1.5 twice, and of its attention to words a copy for the parts' tokens."""

from __future__ import annotations

from dataclasses import replace

from referencenet.checkpoints.start import Graft, Start
from referencenet.methods.parts2whole import Parts2WholePipeline
from referencenet.training.beginnings import CUT_WRITER, SAME, anew

START = Start(
    published=replace(Parts2WholePipeline.published, name="parts2whole.start", files=()),
    grafts={
        "unet": Graft(base=SAME, copies=[(r"(.*\.attn2)\.to_([kv])\.weight", r"\1.processor.to_\2_ip.0.weight")]),
        "reference_unet": CUT_WRITER,
        "pose_guider": anew("published so: drawn, and its last layer zero"),
    },
)
