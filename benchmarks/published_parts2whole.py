"""A denoising step of Parts2Whole the published way, written plainly: what ours is measured against.

As the specification of huanngzh/Parts2Whole (commit e217655) counts it: tokens of the own picture and of all parts are
queries, keys and values together, and the parts' results are cut off; both halves do so, then the unconditional one
attends to itself alone and overwrites the first result. Parts are written before, on two rows each, of which one is
read. Left out: masks, which cost nothing; the bank's rounding. Letters: n own tokens, t tokens of all parts, p parts, c
channels.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from published_animate_anyone import guided
from published_idm_vton import JoinedAttention
from published_parts import blocks, features, hooked, processed
from torch import Tensor

PLAIN = AttnProcessor2_0()


class PartsAttention:
    """Self-attention over [own; parts] for both halves, then over the own tokens for the first one."""

    def __init__(self, parts: Tensor) -> None:
        self.joined = JoinedAttention(parts)  # (2, t, c)

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """(2, n, c) to the same."""
        read = self.joined(attn, hidden_states)
        return torch.cat([PLAIN(attn, hidden_states[:1], hidden_states[:1]), read[1:]])


def write(reference_unet: Any, parts: Tensor, labels: Tensor, negative: Tensor) -> list[Tensor]:
    """Per block the tokens of all parts for both halves, (2, t, c).

    Args:
        reference_unet: The reference net.
        parts: Latents (p, 4, h, w).
        labels: Their labels' states (p, tokens, c).
        negative: The negative prompt's, (1, tokens, c).
    """
    written: list[list[Tensor]] = []
    for part, label in zip(parts.split(1), labels.split(1), strict=True):
        contexts = torch.cat([negative, label])
        rows = part.repeat(2, 1, 1, 1)
        written.append(
            features(lambda: reference_unet(rows, 0, encoder_hidden_states=contexts), blocks(reference_unet))  # noqa: B023
        )
    return [torch.cat(block, dim=1) for block in zip(*written, strict=True)]


def step(unet: Any, bank: list[Tensor], given: dict[str, Any], scale: float) -> Tensor:
    """The guided prediction, (1, 4, h, w).

    Args:
        unet: The denoiser.
        bank: What `write` gave.
        given: Keys `pose` (1, width, h, w), the guider's features; `latents` (1, 4, h, w), `timestep`, `context`, what
            `with_image_prompt` gives for both halves.
        scale: Of guidance.
    """
    reading = {block.attn1: PartsAttention(feature) for (_, block), feature in zip(blocks(unet), bank, strict=True)}
    latents, pose = given["latents"].repeat(2, 1, 1, 1), given["pose"]
    with hooked(unet.conv_in.register_forward_hook(lambda _module, _args, output: output + pose)), processed(reading):
        halves = unet(latents, given["timestep"], given["context"], return_dict=False)[0]
    return guided(halves, scale)
