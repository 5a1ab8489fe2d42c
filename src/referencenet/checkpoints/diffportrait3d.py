"""DiffPortrait3D's released file as a row: one joint file with all networks, view modules inside the denoiser's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from referencenet.checkpoints.joint import BUILD, FURTHER, joint_files
from referencenet.checkpoints.keys.views import view_unet_keys
from referencenet.checkpoints.motion_keys import check_position_tables
from referencenet.checkpoints.published import PublishedSet
from referencenet.networks.layout import film_config
from referencenet.networks.stable_diffusion import SD15_PARTS, TINY_PARTS, parts_config
from referencenet.networks.views import ViewUNet


def build_view_unet(config: Mapping[str, Any]) -> ViewUNet:
    """The denoiser: 8 heads and a table of 32 views in every view module."""
    return ViewUNet(**film_config(config["unet"]))


PUBLISHED = PublishedSet(
    name="diffportrait3d.release",
    source="the link in github.com/FreedomGu/DiffPortrait3D",
    licence="none stated for the weights; code MIT; contains Stable Diffusion 1.5 (OpenRAIL-M)",
    paper="2312.13016",
    files=tuple(
        replace(file, checks=(check_position_tables,)) if file.component == "unet" else file
        for file in joint_files(
            "model_state-540000-001.th",
            "diffportrait3d-model_state",
            appearance="control_model.",
            unet_keys=view_unet_keys,
        )
    ),
    build={**BUILD, "unet": build_view_unet},
    base_config=SD15_PARTS,
    tiny_config=TINY_PARTS,
    further=FURTHER,
    configure=parts_config,
)
"""Everything in one file."""
