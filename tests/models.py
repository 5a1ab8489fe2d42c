"""Tiny UNets and what a pass of theirs is given, for tests below the pipelines."""

from __future__ import annotations

from typing import Any

import torch

from tiny import CONTEXT, latents, tiny, unet

MODELS = ("sd1", "sd2", "xl", "motion")
Pass = dict[str, Any]


def model(name: str) -> Any:
    """Return a fresh tiny UNet: sd1, sd2, xl or motion (AnimateDiff)."""
    return tiny("animatediff").unet if name == "motion" else unet(name)


def arguments(name: str, rows: int, seed: int = 0, *, size: tuple[int, int] = (8, 8), frames: int = 1, tokens: int = 5,
              timestep: int = 10) -> Pass:  # fmt: skip
    """Return the arguments of one pass over `rows` samples: latents (rows, 4[, frames], *size) and their conditions."""
    width = CONTEXT + 8 if name == "xl" else CONTEXT
    shape = (rows, 4, frames, *size) if name == "motion" else (rows, 4, *size)
    folded = rows * frames if name == "motion" else rows
    context = latents(seed + 1, rows, tokens, width).repeat_interleave(folded // rows, dim=0)
    found: Pass = {"sample": latents(seed, *shape), "timestep": timestep, "encoder_hidden_states": context}
    if name == "xl":
        time_ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(rows, 1)
        found["added_cond_kwargs"] = {"text_embeds": latents(seed + 2, rows, 12), "time_ids": time_ids}
    return found


def cast(given: Any, dtype: torch.dtype) -> Any:
    """Return the same arguments in another floating-point type."""
    if isinstance(given, dict):
        return {key: cast(value, dtype) for key, value in given.items()}
    return given.to(dtype) if isinstance(given, torch.Tensor) else given
