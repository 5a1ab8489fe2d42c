"""Feed-forward layers piece by piece: what takes most memory in a plain pass, and no operation more or less.

A transformer's feed-forward layer works on every token by itself, and in between it holds sixteen times what it is
given. In eighths of the tokens it holds two. diffusers' blocks know pieces (`set_chunk_feed_forward`), of a size that
divides what they are given; it is found when a block is called.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

NUM_PIECES = 8
SMALLEST = 2048
"""Tokens of a piece: with fewer, a device would wait for its next piece."""


@contextmanager
def in_pieces(unet: nn.Module) -> Generator[None]:
    """Inside, the feed-forward layers of a UNet's transformer blocks run piece by piece, where nothing is compiled.

    Blocks for which the user has chosen pieces keep them.
    """
    blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    compiled = any(module._compiled_call_impl is not None for module in unet.modules())  # pyright: ignore[reportPrivateUsage]
    with ExitStack() as undo:
        for block in blocks:
            if compiled or hasattr(unet, "_orig_mod") or block._chunk_size is not None:  # pyright: ignore[reportPrivateUsage]
                continue
            undo.callback(block.set_chunk_feed_forward, None)
            undo.callback(block.register_forward_pre_hook(_choose, with_kwargs=True).remove)
        yield


def piece_of(rows: int, tokens: int) -> tuple[int, int] | None:
    """The size of a piece, and the axis that it is cut from, the longer one if that can be; None: all at once.

    Args:
        rows: Of the hidden states.
        tokens: In each row.
    """
    most = max(rows * tokens // NUM_PIECES, SMALLEST)
    if rows * tokens <= most:
        return None
    sizes = (rows, tokens)
    for axis in sorted((0, 1), key=lambda axis: -sizes[axis]):
        wanted = max(most // sizes[1 - axis], 1)
        size = next(size for size in range(wanted, 0, -1) if sizes[axis] % size == 0)
        if 4 * size >= wanted:  # else there were too many pieces: no larger size divides the axis
            return size, axis
    return None


def _choose(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Set the size for hidden states (rows, tokens, channels); no pieces under autograd, which keeps all of them."""
    hidden = args[0] if args else kwargs["hidden_states"]
    piece = None if torch.is_grad_enabled() else piece_of(*hidden.shape[:2])
    block.set_chunk_feed_forward(*(piece or (None,)))  # pyright: ignore[reportCallIssue]
