"""FlashFace's start: Stable Diffusion 1.5 twice; the denoiser's second attention begins as a copy of the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from referencenet.checkpoints.start import Graft, Start
from referencenet.methods.flashface import FlashFacePipeline
from referencenet.networks.layout import picture_config
from referencenet.networks.stable_diffusion import configs_of
from referencenet.training.beginnings import SAME


def configuration(paths: Mapping[str, Path], base: str | Path | None) -> Mapping[str, Mapping[str, Any]]:  # noqa: ARG001 - as called
    """The base's UNet with the small numbers of FlashFace's, at the size that it was trained at."""
    unet = picture_config(configs_of(base, ["unet"])["unet"])
    return {"unet": unet | {"norm_eps": 1e-6, "sample_size": 96}}


START = Start(
    published=replace(FlashFacePipeline.published, name="flashface.start", files=(), configure=configuration),
    grafts={
        "unet": Graft(
            base=SAME,
            copies=[(r"((?:up_blocks\.\d+|mid_block)\..*\.attn1)\.(to_.*)", r"\1.reference.\2")],
            widened=[r"conv_in\.weight"],
        ),
        "reference_unet": Graft(base=SAME),
    },
)
