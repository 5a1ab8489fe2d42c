"""A denoising step of StableGarment's try-on the published way, written plainly: what ours is measured against.

As the specification of logn-2024/StableGarment (commit cccb6e3) counts it: the garment encoder runs to its end; the
ControlNet embeds keep mask, DensePose and agnostic latents at every step, for both halves; every self-attention is
called for both halves, and once more for the conditional one with the garment's tokens as keys and values, queries and
output projection included. Letters: n own tokens, t garment tokens, c channels.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from published_animate_anyone import guided
from published_parts import blocks, features, processed
from torch import Tensor

PLAIN = AttnProcessor2_0()


class AddedAttention:
    """Attention to the own tokens, and for the second half the same call to the garment's, added."""

    def __init__(self, garment: Tensor) -> None:
        self.garment = garment  # (1, t, c)

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """(2, n, c) to the same."""
        own = PLAIN(attn, hidden_states, hidden_states)
        term = PLAIN(attn, hidden_states[1:], self.garment)
        return torch.cat([own[:1], own[1:] + term])


def step(unet: Any, reference_unet: Any, controlnet: Any, guider: Any, given: dict[str, Any], scale: float) -> Tensor:
    """The guided prediction, (1, 4, h, w).

    Args:
        unet: The denoiser.
        reference_unet: The garment encoder.
        controlnet: Without its embedding.
        guider: That embedding.
        given: Keys `garment` (1, 4, h, w), `garment_context` (1, tokens, c), `timestep`, `condition` (1, 4, H, W),
            `agnostic` (1, 4, h, w), `latents` (1, 4, h, w), `contexts` (2, tokens, c), unconditional first.
        scale: Of guidance.
    """
    t, contexts = given["timestep"], given["contexts"]
    bank = features(
        lambda: reference_unet(given["garment"], t, encoder_hidden_states=given["garment_context"]),
        blocks(reference_unet),
    )
    latents, condition, agnostic = (given[name].repeat(2, 1, 1, 1) for name in ("latents", "condition", "agnostic"))
    embedded = guider(condition, agnostic)
    down, middle = controlnet(latents, t, contexts, controlnet_cond=embedded, return_dict=False)
    adding = {block.attn1: AddedAttention(feature) for (_, block), feature in zip(blocks(unet), bank, strict=True)}
    with processed(adding):
        halves = unet(
            latents,
            t,
            contexts,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
    return guided(halves, scale)
