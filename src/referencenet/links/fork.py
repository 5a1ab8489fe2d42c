"""Rows of a guidance batch that are equal until the first linked site are computed once and forked there.

Two passes of guidance that differ only in what they read of a reference have one down path, if no site lies in it:
FlashFace's conditional rows with and without faces, MagicAnimate's halves. Skip connections fork one by one, as a block
takes them: all at once, beside those before the fork, they would need more memory than a batch that never was one.
Letters: r rows before, k behind the fork.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, overload

import torch
from torch import Tensor, nn

SKIPS = "res_hidden_states_tuple"
"""Name under which diffusers' UNets hand an up block its skip connections."""

MIDDLE = "mid_block_additional_residual"
"""Name under which they get what is added behind their middle block, where rows have parted already."""


@contextmanager
def forked(unet: nn.Module, rows: Sequence[int]) -> Generator[None]:
    """Inside, the UNet's middle and up blocks work on the given rows of the batch, the down blocks on the batch itself.

    Args:
        unet: A diffusers UNet2DConditionModel; its output gets k rows.
        rows: For each of the k rows behind the fork its row before it, such as [0, 0, 1].

    Raises:
        TypeError: If the UNet has no middle block.
        ValueError: If `rows` leaves out a row, or only changes the order of rows.
    """
    if getattr(unet, "mid_block", None) is None:
        raise TypeError(f"{type(unet).__name__} has no mid_block, before which its rows could fork.")
    count = len(set(rows))
    if set(rows) != set(range(count)) or len(rows) <= count:
        raise ValueError(
            f"the rows behind the fork are {list(rows)}; expected every row from 0 on, and one of them twice."
        )

    def fork(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ARG001 - a hook
        forks = {name: _take(value, rows, count) for name, value in kwargs.items() if name != SKIPS}
        if SKIPS in kwargs:
            forks[SKIPS] = _ForkedSkips(kwargs[SKIPS], rows, count)
        return _take(args, rows, count), forks

    def fork_middle(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ARG001
        return args, {**kwargs, MIDDLE: _take(kwargs.get(MIDDLE), rows, count)}

    with ExitStack() as undo:
        undo.callback(unet.register_forward_pre_hook(fork_middle, with_kwargs=True).remove)
        for block in (unet.mid_block, *unet.up_blocks):  # pyright: ignore[reportGeneralTypeIssues] - a ModuleList
            undo.callback(block.register_forward_pre_hook(fork, with_kwargs=True).remove)
        yield


class _ForkedSkips(Sequence[Tensor]):
    """Skip connections of an up block, each forked when it is taken and not before.

    Args:
        skips: Before the fork, (r, c, h, w) each.
        rows: As `forked` has them.
        count: r.
    """

    def __init__(self, skips: Sequence[Tensor], rows: Sequence[int], count: int) -> None:
        self.skips, self.rows, self.count = skips, rows, count

    def __len__(self) -> int:
        return len(self.skips)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> _ForkedSkips: ...

    def __getitem__(self, index: int | slice) -> Tensor | _ForkedSkips:
        if isinstance(index, slice):
            return _ForkedSkips(self.skips[index], self.rows, self.count)
        return _take(self.skips[index], self.rows, self.count)


def _take(value: Any, rows: Sequence[int], count: int) -> Any:
    """The forked rows of every tensor inside `value` that has the rows before the fork; others have them already."""
    if isinstance(value, Tensor):
        if value.ndim == 0 or value.shape[0] != count:
            return value
        return value.index_select(0, torch.tensor(rows, device=value.device))
    if isinstance(value, tuple):
        return tuple(_take(part, rows, count) for part in value)
    if isinstance(value, dict):
        return {key: _take(part, rows, count) for key, part in value.items()}
    return value
