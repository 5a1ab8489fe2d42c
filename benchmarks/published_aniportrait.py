"""A denoising step of AniPortrait the published way, written plainly: what ours is measured against.

As the specification of Zejun-Yang/AniPortrait (commit 7f6593f) counts it: reading and guidance are Animate Anyone's
(`published_animate_anyone.py`); the guider of drawings runs in every window at every step, on the frames of both halves
of guidance, which are the same. Left out, in favour of the published way: the convolutions of the portrait's own
drawing, whose result is thrown away; the bank's rounding. Letters: f frames, (h, w) latents, (H, W) pixels.
"""

from __future__ import annotations

from typing import Any

from published_animate_anyone import Bank, guided, predict
from published_parts import hooked
from torch import Tensor


def step(unet: Any, guider: Any, bank: Bank, given: dict[str, Any], scale: float) -> Tensor:
    """The guided prediction of a window, (1, 4, f, h, w).

    Args:
        unet: The denoiser.
        guider: Of the drawings.
        bank: What `published_animate_anyone.write` gave.
        given: Keys `drawings` (f, 3, H, W) in [-1, 1], `latents` (1, 4, f, h, w), `timestep`, `token` (1, 1, c).
        scale: Of guidance.
    """
    maps = guider(given["drawings"].repeat(2, 1, 1, 1))
    places = [unet.conv_in, *unet.down_blocks]
    handles = [place.register_forward_hook(adding(level)) for place, level in zip(places, maps, strict=True)]
    with hooked(*handles):
        halves = predict(unet, bank, given["latents"], given["timestep"], given["token"])
    return guided(halves, scale)


def adding(level: Tensor) -> Any:
    """A hook that adds a map (2 f, width, h, w) to what a block gives on, not to its skips."""

    def add(_module: Any, _args: Any, output: Any) -> Any:
        return (output[0] + level, *output[1:]) if isinstance(output, tuple) else output + level

    return add
