"""Context windows: how a film longer than a motion module's reach is cut into runs of frames.

`published_windows` is the scheduler of AnimateDiff's long films (animatediff-cli, 2023) that Animate Anyone and its
relatives use: it wraps around the film's end, so that a film of 25 frames costs 48. `cover` is ours: no wrap-around, no
window twice, every frame covered, neighbours blended over their overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import torch
from torch import Tensor

OVERLAP = 2
"""Of our windows: the fewest frames whose seams show less than half as much as the published ones."""

PUBLISHED_OVERLAP = 4


@dataclass(frozen=True)
class Window:
    """Frames that are denoised together.

    Attributes:
        frames: Their indices in the film, in the order in which the motion modules see them.
        weights: How much each frame's prediction counts beside those of other windows; 0 for those that fill it up.
    """

    frames: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How films are cut.

    Attributes:
        size: Most frames in a window; no more than the motion modules have positions for.
        overlap: Frames that neighbours share; with `published` at most the size less one, else at most half of it.
            None: `OVERLAP`, or `PUBLISHED_OVERLAP`.
        published: Cut as the published code does, with wrap-around and uniform weights.
        stride: Published only: log2 of the largest step between a window's frames, plus one.
        filled: Every window has the whole size, for models that know groups of one size only; without overlap.
    """

    size: int = 24
    overlap: int | None = None
    published: bool = False
    stride: int = 1
    filled: bool = False

    def __post_init__(self) -> None:
        most = self.size - 1 if self.published else self.size // 2
        if self.size < 1 or not 0 <= self.num_shared <= most:
            raise ValueError(
                f"windows of {self.size} frames with an overlap of {self.num_shared} cannot be; expected a size of at "
                f"least 1 and "
                f"an overlap from 0 to {max(most, 0)}."
            )
        if self.stride < 1 or (self.stride != 1 and not self.published):
            raise ValueError(f"the stride is {self.stride}; expected 1, or with published=True a number above 1.")
        if self.filled and (self.published or self.num_shared):
            raise ValueError("filled windows share no frames and are not the published ones; give overlap=0 alone.")

    @property
    def num_shared(self) -> int:
        """Frames that neighbours share: the overlap, also where it was left open."""
        if self.overlap is not None:
            return self.overlap
        return PUBLISHED_OVERLAP if self.published else OVERLAP

    def of(self, num_frames: int) -> list[Window]:
        """The windows of a film.

        Raises:
            ValueError: If the film has no frame.
        """
        if self.published:
            _check_frames(num_frames)
            runs = published_windows(num_frames, self.size, stride=self.stride, overlap=self.num_shared)
            return [Window(tuple(run), (1.0,) * len(run)) for run in runs]
        return groups(num_frames, self.size) if self.filled else cover(num_frames, self.size, self.num_shared)


def cover(num_frames: int, size: int, overlap: int) -> list[Window]:
    """Cut a film into as few windows as possible, none larger than needed: sizes differ by one frame at most.

    Weights rise and fall linearly over overlaps, so that those of a frame add up to 1.

    Args:
        num_frames: Of the film, from 1.
        size: Most frames in a window.
        overlap: Frames that neighbours share, at most half the size.

    Returns:
        In order, larger windows first.

    Raises:
        ValueError: If the film has no frame.
    """
    _check_frames(num_frames)
    count = 1 if num_frames <= size else ceil((num_frames - overlap) / (size - overlap))
    least, num_larger = divmod(num_frames + (count - 1) * overlap, count)
    sizes = [least + (i < num_larger) for i in range(count)]
    starts = [sum(sizes[:i]) - i * overlap for i in range(count)]
    ramps = [_ramps(sizes[i], overlap * (i > 0), overlap * (i < count - 1)) for i in range(count)]
    totals = [0.0] * num_frames
    for start, ramp in zip(starts, ramps, strict=True):
        for i, weight in enumerate(ramp):
            totals[start + i] += weight
    return [
        Window(
            tuple(range(start, start + len(ramp))), tuple(weight / totals[start + i] for i, weight in enumerate(ramp))
        )
        for start, ramp in zip(starts, ramps, strict=True)
    ]


def groups(num_frames: int, size: int) -> list[Window]:
    """Cut a film into groups of one size, one behind the other.

    The last one is filled up with the frames before it, or, where there are none, with the last frame again; what is
    predicted for those does not count.

    Args:
        num_frames: Of the film, from 1.
        size: Frames in a group.

    Raises:
        ValueError: If the film has no frame.
    """
    _check_frames(num_frames)
    found = [Window(tuple(range(i, i + size)), (1.0,) * size) for i in range(0, num_frames - size + 1, size)]
    rest = num_frames % size
    if rest and found:
        found.append(Window(tuple(range(num_frames - size, num_frames)), (0.0,) * (size - rest) + (1.0,) * rest))
    elif rest:
        found.append(Window((*range(rest), *[rest - 1] * (size - rest)), (1.0,) * rest + (0.0,) * (size - rest)))
    return found


def published_windows(
    num_frames: int,
    size: int,
    *,
    stride: int = 1,
    overlap: int = PUBLISHED_OVERLAP,
    closed_loop: bool = True,
    step: int = 0,
) -> list[list[int]]:
    """The published windows.

    Args:
        num_frames: Of the film.
        size: Frames in a window.
        stride: Windows are also taken of every 2nd, 4th, ... frame, up to 2 ** (stride - 1), as long as the film
            allows.
        overlap: Frames that neighbours share.
        closed_loop: Whether windows start up to the film's end and wrap to its beginning; the published pipelines say
            so.
        step: Shifts the windows from one denoising step to the next; the published pipelines always pass 0.
    """
    if num_frames <= size:
        return [list(range(num_frames))]
    windows: list[list[int]] = []
    for power in range(min(stride, ceil(log2(num_frames / size)) + 1)):
        between = 2**power
        shift = ordered_halving(step)
        pad = round(num_frames * shift)
        start, end = int(shift * between) + pad, num_frames + pad - (0 if closed_loop else overlap)
        for first in range(start, end, size * between - overlap):
            windows.append([(first + k * between) % num_frames for k in range(size)])
    return windows


def ordered_halving(step: int) -> float:
    """The bits of a 64-bit step in reverse, as a fraction in [0, 1): 0, 1/2, 1/4, 3/4, 1/8, ..."""
    return int(f"{step:064b}"[::-1], 2) / 2**64


def add_prediction(total: Tensor, prediction: Tensor, window: Window) -> None:
    """Add a window's prediction, by its weights, to the film's, in place; a frame twice in a window counts twice.

    Args:
        total: (b, c, film's frames, h, w).
        prediction: (b, c, window's frames, h, w).
        window: Where.
    """
    weights = torch.tensor(window.weights, dtype=total.dtype, device=total.device).view(-1, 1, 1)
    index = torch.tensor(window.frames, device=total.device)
    total.index_add_(2, index, prediction.to(total.dtype) * weights.unsqueeze(0))


def total_weights(windows: list[Window], num_frames: int) -> Tensor:
    """How much the predictions of each frame weigh together: (film's frames, 1, 1)."""
    total = torch.zeros(num_frames)
    for window in windows:
        total.index_add_(0, torch.tensor(window.frames), torch.tensor(window.weights))
    return total.view(-1, 1, 1)


def _ramps(size: int, before: int, after: int) -> tuple[float, ...]:
    """Weights of a window that shares `before` frames with the last one and `after` with the next one."""
    return tuple(min(1.0, (i + 1) / (before + 1), (size - i) / (after + 1)) for i in range(size))


def _check_frames(num_frames: int) -> None:
    if num_frames < 1:
        raise ValueError(f"a film of {num_frames} frames cannot be made; give at least 1 pose.")
