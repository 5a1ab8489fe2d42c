"""Between what an autoencoder gives and what is denoised: shift, mean, deviation and scale as its configuration says.

Stable Diffusion scales; Stable Diffusion 3's autoencoders shift as well; others (Playground 2.5) have a mean and a
deviation for each channel.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from referencenet.links.turns import turn
from referencenet.sampling.encodings import ENCODINGS


def scaled(latents: Tensor, config: Any) -> Tensor:
    """What an autoencoder gives, (b, c, h, w), as it is denoised.

    Args:
        latents: A sample or the mean of its posterior, (b, c, h, w).
        config: The autoencoder's.
    """
    mean, deviation, shift = _statistics(config, latents)
    return ((latents - mean) / deviation - shift) * config.scaling_factor


def unscaled(latents: Tensor, config: Any) -> Tensor:
    """What is denoised, (b, c, h, w), as an autoencoder decodes it: the inverse of `scaled`.

    Args:
        latents: Denoised, (b, c, h, w).
        config: The autoencoder's.
    """
    mean, deviation, shift = _statistics(config, latents)
    return (latents / config.scaling_factor + shift) * deviation + mean


def posterior_samples(vae: Any, pixels: Tensor, generators: Sequence[torch.Generator | None]) -> Tensor:
    """Scaled samples of a picture's posterior, one for each generator: (generators, c, h, w).

    Args:
        vae: The autoencoder; a tiny one has no posterior, and gives one row.
        pixels: (1, 3, H, W) in [0, 1]; what they are encoded to is kept for further calls.
        generators: None draws from torch's global one.
    """
    with in_safe_precision(vae) as dtype:
        encoded = ENCODINGS.of(vae, pixels.to(vae.device, dtype) * 2 - 1)
    if isinstance(encoded, Tensor):
        return scaled(encoded, vae.config)
    return scaled(torch.cat([encoded.sample(each) for each in generators]), vae.config)


def posterior_mode(vae: Any, pixels: Tensor) -> Tensor:
    """Scaled latents of a picture, the most probable ones: (1, c, h, w).

    Args:
        vae: The autoencoder; a tiny one gives its latents.
        pixels: (1, 3, H, W) in [0, 1]; what they are encoded to is kept for further calls.
    """
    with in_safe_precision(vae) as dtype:
        encoded = ENCODINGS.of(vae, pixels.to(vae.device, dtype) * 2 - 1)
    return scaled(encoded if isinstance(encoded, Tensor) else encoded.mode(), vae.config)


@contextmanager
def in_safe_precision(vae: Any) -> Generator[torch.dtype]:
    """Inside, an autoencoder that overflows in half precision and says so (SDXL's) computes in float32.

    Its weights are changed for that long, so threads that share it take turns.
    """
    if not getattr(vae.config, "force_upcast", False):
        yield vae.dtype
        return
    with turn([vae], "wait"):
        dtype = vae.dtype
        if dtype != torch.float16:
            yield dtype
            return
        vae.to(torch.float32)
        try:
            yield torch.float32
        finally:
            vae.to(dtype)


def _statistics(config: Any, like: Tensor) -> tuple[Any, Any, float]:
    """Mean and deviation, (1, c, 1, 1) or numbers that change nothing, and the shift."""
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    shift = getattr(config, "shift_factor", None) or 0.0
    if mean is None or deviation is None:
        return 0.0, 1.0, shift
    return like.new_tensor(mean).view(1, -1, 1, 1), like.new_tensor(deviation).view(1, -1, 1, 1), shift
