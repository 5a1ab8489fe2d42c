"""A denoising step of MagicPose the published way, written plainly: what ours is measured against.

As the specification of Boese0601/MagicDance (commit a515a1f) counts it: every pose is drawn by itself, so the reference
net runs for each, to the end of its decoder; the ControlNet runs, embedding included, for the conditional and for the
unconditional pass, whose residuals are thrown away; the bank's keys and values are projected for every pose. Letters: f
poses, n own tokens, t reference tokens, c channels.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from published_parts import blocks, features, processed
from torch import Tensor

PLAIN = AttnProcessor2_0()


class JoiningAttention:
    """Attention over [own; reference]."""

    def __init__(self, reference: Tensor) -> None:
        self.reference = reference  # (1, t, c)

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """(1, n, c) to the same."""
        return PLAIN(attn, hidden_states, torch.cat([hidden_states, self.reference], dim=1))


def step(unet: Any, reference_unet: Any, controlnet: Any, given: dict[str, Any], scale: float) -> Tensor:
    """The guided predictions of all poses, (1, 4, f, h, w).

    Args:
        unet: The denoiser.
        reference_unet: The reference net.
        controlnet: Of the poses.
        given: Keys `reference` (1, 4, h, w), `context` (1, tokens, c), `timestep`, `poses` (f, 3, H, W) in [0, 1],
            `latents` (1, 4, f, h, w).
        scale: Of guidance.
    """
    t, context = given["timestep"], given["context"]
    frames: list[Tensor] = []
    for latents, pose in zip(given["latents"].unbind(2), given["poses"].split(1), strict=True):
        bank = features(
            lambda: reference_unet(given["reference"], t, encoder_hidden_states=context), blocks(reference_unet)
        )
        reading = {
            block.attn1: JoiningAttention(feature) for (_, block), feature in zip(blocks(unet), bank, strict=True)
        }
        down, middle = controlnet(latents, t, context, controlnet_cond=pose, return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        with processed(reading):
            conditional = unet(latents, t, context, **residuals, return_dict=False)[0]
        controlnet(latents, t, context, controlnet_cond=pose, return_dict=False)
        plain = unet(latents, t, context, return_dict=False)[0]
        frames.append(plain + scale * (conditional - plain))
    return torch.stack(frames, dim=2)
