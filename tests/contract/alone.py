"""Attention to a reference alone once more, plainly: what the replacing link is held against.

The writer leaves what its self-attentions give; the reader's block is x + attn1(x) + attn2(x, reference) + ff(x).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from plain import Written, softmax_attention
from referencenet.networks.portrait_layers import PortraitBlock


@contextmanager
def plain_alone(unet: nn.Module, writer: nn.Module, written: Written, amounts: Sequence[float]) -> Generator[None]:
    """Inside, a pass of the UNet reads what was written, equal parts of its rows each so much."""
    blocks = {name: block for name, block in unet.named_modules() if isinstance(block, PortraitBlock)}
    for name, block in blocks.items():
        tokens = written.tokens[f"{name}.attn1"]
        output = softmax_attention(writer.get_submodule(f"{name}.attn1"), tokens, tokens)
        block.forward = partial(_forward, block, output, amounts)
    try:
        yield
    finally:
        for block in blocks.values():
            del block.forward


def _forward(block: Any, written: Tensor, amounts: Sequence[float], hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    """The block."""
    rows = hidden.shape[0]
    reference = written.repeat_interleave(rows // written.shape[0], dim=0)
    amount = torch.tensor(amounts).repeat_interleave(rows // len(amounts)).view(-1, 1, 1)
    own = block.norm1(hidden)
    hidden = hidden + softmax_attention(block.attn1, own, own)
    hidden = hidden + amount * softmax_attention(block.attn2, block.norm2(hidden), reference)
    return hidden + block.ff(block.norm3(hidden))
