"""Frames inserted between drawn ones by an interpolation network (FILM, Reda et al. 2022), in AniPortrait's order.

FILM is best in the middle of two frames. So the missing time that lies nearest to the middle of an interval of known
frames comes first, again and again, and every inserted frame is known to the next ones.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from referencenet.checkpoints.files import read_torchscript

Interpolator = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Two frames (1, 3, H, W) in [0, 1] and the time between them (1, 1) in (0, 1), to the frame at that time."""


def insertion_calls(count: int) -> list[tuple[float, float, float]]:
    """In which order so many frames are inserted between times 0 and 1: (earlier time, later time, share of the gap).

    Raises:
        ValueError: If the count is negative.
    """
    if count < 0:
        raise ValueError(f"{count} frames were to be inserted; expected 0 or more.")
    last = count + 1
    known, missing = [0, last], list(range(1, last))
    calls: list[tuple[float, float, float]] = []
    while missing:
        gaps = [(a, b, m) for a, b in zip(known, known[1:], strict=False) for m in missing if a < m < b]
        # as published: the first of those whose distance from the middle of their own gap is the least
        a, b, m = min(gaps, key=lambda gap: abs((gap[2] - gap[0]) / (gap[1] - gap[0]) - 0.5))
        calls.append((a / last, b / last, (m - a) / (b - a)))
        missing.remove(m)
        insort(known, m)
    return calls


@torch.no_grad()
def insert_frames(frames: Tensor, count: int, interpolator: Interpolator) -> Tensor:
    """Insert frames into a film.

    Args:
        frames: (f, 3, H, W) in [0, 1].
        count: How many go into each gap.
        interpolator: Makes them.

    Returns:
        ((f - 1) (count + 1) + 1, 3, H, W) in [0, 1].
    """
    film = [frames[:1]]
    for earlier, later in zip(frames[:-1].split(1), frames[1:].split(1), strict=True):
        known = {0.0: earlier, 1.0: later}
        for start, end, share in insertion_calls(count):
            between = interpolator(known[start], known[end], torch.tensor([[share]]))
            known[start + (end - start) * share] = between.to(frames).clamp(0, 1)
        film += [known[time] for time in sorted(known) if time > 0]
    return torch.cat(film)


def read_interpolator(path: str | Path, device: str | torch.device = "cpu") -> Interpolator:
    """A user's FILM file, a TorchScript archive such as `film_net_fp16.pt`.

    Args:
        path: Of the file.
        device: Where it computes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a TorchScript archive.
        CheckpointError: If it holds numbers that are not finite.
    """
    network = read_torchscript(path, "interpolation network", "give FILM's film_net_fp16.pt", device)
    return Network(network, device)


class Network:
    """A network that inserts frames, where and in the type in which it computes.

    Args:
        network: Takes two frames and a share.
        device: Where it computes.
    """

    def __init__(self, network: nn.Module, device: str | torch.device) -> None:
        self.network, self.device = network, device
        self.dtype = next((p.dtype for p in network.parameters()), torch.float32)

    def __call__(self, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
        """The frame (1, 3, height, width) at a share (1, 1) of the way between two, all in [0, 1]."""
        return self.network(*(x.to(self.device, self.dtype) for x in (first, second, share)))
