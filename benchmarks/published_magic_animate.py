"""A denoising step of MagicAnimate the published way, written plainly: what ours is measured against.

As the specification of magic-research/magic-animate (commit d2bc3bc) counts it: the appearance encoder runs on two
rows, of which one is read, and to its end; the ControlNet runs once per frame and embeds the drawings at every step;
both halves run from the first layer on, though they are equal down to the middle block; reading is Animate Anyone's, in
the middle and up blocks. Left out: the bank's rounding. Letters: f frames, (h, w) latents, (H, W) pixels.
"""

from __future__ import annotations

from typing import Any

from published_animate_anyone import MaskedAttention, guided
from published_parts import blocks, features, processed
from torch import Tensor


def linked(unet: Any) -> list[tuple[str, Any]]:
    """Blocks behind the encoder, in the order of a pass."""
    return [(name, block) for name, block in blocks(unet) if not name.startswith("down_blocks")]


def step(unet: Any, reference_unet: Any, controlnet: Any, given: dict[str, Any], scale: float) -> Tensor:
    """The guided prediction of a window, (1, 4, f, h, w).

    Args:
        unet: The denoiser.
        reference_unet: The appearance encoder.
        controlnet: Of the drawings.
        given: Keys `reference` (1, 4, h, w), `context` (1, tokens, c) of both halves, `timestep`, `drawings`
            (f, 3, H, W) in [0, 1], `latents` (1, 4, f, h, w).
        scale: Of guidance.
    """
    t, latents = given["timestep"], given["latents"]
    frames, contexts = latents.shape[2], given["context"].repeat(2, 1, 1)
    reference = given["reference"].repeat(2, 1, 1, 1)
    bank = features(lambda: reference_unet(reference, t, encoder_hidden_states=contexts), linked(reference_unet))
    folded = latents.transpose(1, 2).flatten(0, 1)
    per_frame = given["context"].repeat(frames, 1, 1)
    down, middle = controlnet(folded, t, per_frame, controlnet_cond=given["drawings"], return_dict=False)
    masked = {block.attn1: MaskedAttention(feature) for (_, block), feature in zip(linked(unet), bank, strict=True)}
    with processed(masked):
        halves = unet(
            latents.repeat(2, 1, 1, 1, 1),
            t,
            contexts,
            down_block_additional_residuals=tuple(level.repeat(2, 1, 1, 1) for level in down),
            mid_block_additional_residual=middle.repeat(2, 1, 1, 1),
            return_dict=False,
        )[0]
    return guided(halves, scale)
