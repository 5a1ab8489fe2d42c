"""A denoising step of FlashFace the published way, written plainly: what ours is measured against.

As the specification of ali-vilab/FlashFace (commit fff0f07) counts it, behind the launch: three branches are three rows
from the first layer on; the reference net runs on all faces, at every step, to its end; every linked block computes its
second attention twice for every row, over [own; faces] and over the own tokens, each with projections of its own, and
multiplies the first by 0 in two branches of three; the faces' tokens are repeated for every row.
Letters: b pictures, r rows = 3 b, n own tokens, t tokens of all faces, c channels.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from published_parts import blocks, features, processed
from torch import Tensor

PLAIN = AttnProcessor2_0()


class WeightedAttention:
    """The second attention: over [own; faces] and over the own tokens, weighted."""

    def __init__(self, faces: Tensor, strengths: Tensor) -> None:
        self.faces = faces  # (1, t, c)
        self.strengths = strengths  # (r, 1, 1)

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """(r, n, c) to the same."""
        joined = torch.cat([hidden_states, self.faces.repeat(hidden_states.shape[0], 1, 1)], dim=1)
        read = PLAIN(attn, hidden_states, joined)
        own = PLAIN(attn, hidden_states, hidden_states)
        return self.strengths * read + (1 - self.strengths) * own


def linked(unet: Any) -> list[tuple[str, Any]]:
    """Blocks behind the encoder, in the order of a pass."""
    return [(name, block) for name, block in blocks(unet) if not name.startswith("down_blocks")]


def write(reference_unet: Any, faces: Tensor, timestep: int, negative: Tensor) -> list[Tensor]:
    """The features of all faces (faces, 4, h, w) as one sequence per block, (1, t, c)."""
    context = negative.repeat(faces.shape[0], 1, 1)
    written = features(lambda: reference_unet(faces, timestep, encoder_hidden_states=context), linked(reference_unet))
    return [feature.flatten(0, 1).unsqueeze(0) for feature in written]


def step(unet: Any, reference_unet: Any, given: dict[str, Any], spec: Any) -> Tensor:
    """The guided noise prediction, (b, 4, height, width).

    Args:
        unet: The denoiser; the second attention of a linked block is `attn1.reference`.
        reference_unet: The reference net.
        given: Keys `faces` (faces, 4, h, w), `timestep`, `latents` (b, 4, height, width), `mask` (height, width),
            `prompt` (b, tokens, c), `negative` (1, tokens, c).
        spec: `scale` of the prompt, and `guidance` with `lambda_feat`, `face_guidance`, `guide_rescale`.
    """
    guidance = spec.guidance
    faces = write(reference_unet, given["faces"], given["timestep"], given["negative"])
    pictures = given["latents"].shape[0]
    strengths = given["latents"].new_tensor([guidance.lambda_feat, 0.0, 0.0])
    strengths = strengths.repeat_interleave(pictures).view(-1, 1, 1)
    sample = torch.cat([given["latents"], given["mask"].repeat(pictures, 1, 1, 1)], dim=1).repeat(3, 1, 1, 1)
    negative = given["negative"].repeat(pictures, 1, 1)
    context = torch.cat([given["prompt"], given["prompt"], negative])
    weighted = {
        block.attn1.reference: WeightedAttention(feature, strengths)
        for (_, block), feature in zip(linked(unet), faces, strict=True)
    }
    with processed(weighted):
        noise = unet(sample, given["timestep"], encoder_hidden_states=context, return_dict=False)[0]
    reading, text, plain = noise.chunk(3)
    prediction = plain + spec.scale * (text - plain) + guidance.face_guidance * (reading - text)
    wanted, found = (part.flatten(1).std(dim=1).view(-1, 1, 1, 1) for part in (text, prediction))
    share = guidance.guide_rescale
    return prediction * (share * wanted / (found + 1e-12) + 1 - share)
