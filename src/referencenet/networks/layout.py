"""Configurations of published UNets in the terms of current diffusers.

The published films' UNets are configured by Stable Diffusion 1's `unet/config.json`, partly with block names of their
own 3-D classes, whose weights are 2-D all the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from diffusers import UNet2DConditionModel, UNetMotionModel

SD15_SCHEDULE: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""Stable Diffusion 1.5's noise schedule, as its DDIM is configured."""

SD15_UNET: Mapping[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,  # of these UNets the number of heads, whatever the name says
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "act_fn": "silu",
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}
"""Stable Diffusion 1.5's UNet."""


def picture_config(published: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration for UNet2DConditionModel: block names are 2-D, and what it does not know is left out."""
    known = inspect.signature(UNet2DConditionModel.__init__).parameters
    config = {key: value for key, value in published.items() if key in known and not key.startswith("_")}
    for key in ("down_block_types", "up_block_types"):
        config[key] = tuple(name.replace("3D", "2D") for name in published[key])
    if "mid_block_type" in config and config["mid_block_type"]:
        config["mid_block_type"] = config["mid_block_type"].replace("3D", "2D")
    return config


def film_config(
    published: Mapping[str, Any], *, num_positions: int = 32, motion_heads: int = 8, motion_in_middle: bool = True
) -> dict[str, Any]:
    """The configuration for a spatio-temporal UNet with motion modules at every level.

    Args:
        published: Configuration of a Stable Diffusion 1 UNet; `attention_head_dim` is its number of heads.
        num_positions: Most frames that a motion module can tell apart.
        motion_heads: Heads of the motion modules.
        motion_in_middle: Whether the middle block has one.
    """
    known = inspect.signature(UNetMotionModel.__init__).parameters
    config = {key: value for key, value in published.items() if key in known and not key.startswith("_")}
    for key in ("down_block_types", "up_block_types"):
        config[key] = tuple(name.replace("2D", "Motion").replace("3D", "Motion") for name in published[key])
    return config | {
        "num_attention_heads": published["attention_head_dim"],
        "motion_num_attention_heads": motion_heads,
        "motion_max_seq_length": num_positions,
        "use_motion_mid_block": motion_in_middle,
    }


TINY_SD15: Mapping[str, Any] = SD15_UNET | {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
"""Stable Diffusion 1.5's UNet with two narrow levels."""
