"""Frames between frames: latents of a film interpolated in time, as Animate Anyone offers after sampling."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PARALLEL = 0.9995  # absolute cosine above which the arc is taken as straight, as published


def interpolate_frames(latents: Tensor, factor: int, how: Literal["linear", "slerp"] = "linear") -> Tensor:
    """Put `factor` - 1 frames between any two.

    Args:
        latents: (b, c, f, h, w).
        factor: From 1, which returns the latents as they are.
        how: Along the straight line, or along the arc between whole frames.

    Returns:
        (b, c, (f - 1) factor + 1, h, w).

    Raises:
        ValueError: If the factor is below 1 or `how` is unknown.
    """
    if factor < 1 or how not in ("linear", "slerp"):
        raise ValueError(f"factor {factor!r} and how {how!r} were given; expected from 1, and 'linear' or 'slerp'.")
    if factor == 1:
        return latents
    frames: list[Tensor] = []
    for i in range(latents.shape[2] - 1):
        first, second = latents[:, :, i], latents[:, :, i + 1]
        step = torch.lerp if how == "linear" else _slerp
        frames += [first, *(step(first, second, k / factor) for k in range(1, factor))]
    return torch.stack([*frames, latents[:, :, -1]], dim=2)


def _slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Spherical interpolation of whole tensors."""
    cosine = (first * second).sum() / (first.norm() * second.norm())
    if cosine.abs() > PARALLEL:
        return torch.lerp(first, second, share)
    angle = torch.acos(cosine)
    return (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)
