"""A denoising step of IDM-VTON the published way, written plainly: what ours is measured against.

As the specification of yisol/IDM-VTON (commit 0d5f3ec) counts it: garment features are doubled with zeros for the
unconditional half; self-attention runs on [own; garment] as queries, keys and values, and the garment's part of the
result is thrown away; GarmentNet runs to the end of its last block with attention. Left out, in favour of the published
way: a product of queries and image prompt that every cross-attention makes and nothing reads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from published_parts import blocks, features, hooked, processed, stop
from torch import Tensor


class JoinedAttention:
    """Self-attention over [own; garment] for both; the garment's results are cut off."""

    def __init__(self, garment: Tensor) -> None:
        self.garment = garment  # (r, t, c)

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """(r, n, c) to the same."""
        joined = torch.cat([hidden_states, self.garment], dim=1)  # (r, n + t, c)
        query, key, value = (
            project(joined).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](read))[:, : hidden_states.shape[1]]


def write(garment_unet: UNet2DConditionModel, latents: Tensor, timestep: int, context: Tensor) -> list[Tensor]:
    """Every norm1's output; the last level, which has no attention, is not run."""
    with hooked(garment_unet.up_blocks[-1].register_forward_pre_hook(stop)):
        return features(lambda: garment_unet(latents, timestep, encoder_hidden_states=context), blocks(garment_unet))


def step(unet: Any, garment_unet: Any, given: dict[str, Any]) -> Tensor:
    """The noise prediction of a guided step, unconditional half first.

    Args:
        unet: TryonNet.
        garment_unet: GarmentNet.
        given: Keys `garment`, `garment_context`, `timestep`, `sample`, `context`, `added`.
    """
    written = write(garment_unet, given["garment"], given["timestep"], given["garment_context"])
    joined = {
        block.attn1: JoinedAttention(torch.cat([torch.zeros_like(feature), feature]))
        for (_, block), feature in zip(blocks(unet), written, strict=True)
    }
    with processed(joined):
        return unet(
            given["sample"], given["timestep"], given["context"], added_cond_kwargs=given["added"], return_dict=False
        )[0]
