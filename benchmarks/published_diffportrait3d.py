"""A denoising step of DiffPortrait3D the published way, written plainly: what ours is measured against.

As the specification of FreedomGu/DiffPortrait3D (commit 91e2503) counts it: the reference net runs on one equal row for
each view, to the end of its decoder; keys and values are projected for each view; the ControlNet runs, embedding
included, for the conditional pass and for the unconditional one, whose residuals are thrown away. Letters: v views.
"""

from __future__ import annotations

from typing import Any

from published_magicpose import JoiningAttention
from published_parts import blocks, features, processed
from torch import Tensor


def step(unet: Any, reference_unet: Any, controlnet: Any, given: dict[str, Any], scale: float) -> Tensor:
    """The guided prediction of a group of views, (1, 4, v, h, w).

    Args:
        unet: The denoiser.
        reference_unet: The reference net.
        controlnet: Of the cameras.
        given: Keys `reference` (1, 4, h, w), `context` (1, tokens, c), `timestep`, `cameras` (v, 3, H, W) in [0, 1],
            `latents` (1, 4, v, h, w).
        scale: Of guidance.
    """
    t, latents, context = given["timestep"], given["latents"], given["context"]
    views = latents.shape[2]
    contexts = context.repeat(views, 1, 1)
    rows = given["reference"].repeat(views, 1, 1, 1)
    bank = features(lambda: reference_unet(rows, t, encoder_hidden_states=contexts), blocks(reference_unet))
    reading = {block.attn1: JoiningAttention(feature) for (_, block), feature in zip(blocks(unet), bank, strict=True)}
    folded, cameras = latents.transpose(1, 2).flatten(0, 1), given["cameras"] * 2 - 1
    down, middle = controlnet(folded, t, contexts, controlnet_cond=cameras, return_dict=False)
    residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    with processed(reading):
        conditional = unet(latents, t, context, middle=[False], **residuals, return_dict=False)[0]
    controlnet(folded, t, contexts, controlnet_cond=cameras, return_dict=False)
    plain = unet(latents, t, context, middle=[True], return_dict=False)[0]
    return plain + scale * (conditional - plain)
