"""What a UNet is shown in channels beside the latents, and what stands there while it is shown a reference.

Seen from a pass, never from a number: what a pipeline keeps under diffusers' names has to be what the sample holds.
Letters: r rows, b pictures, c latent channels, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from referencenet.sampling.caller import Caller
from referencenet.sampling.latents import unscaled
from referencenet.sampling.unet_call import UNetCall

Beside = Literal["nothing", "inpainting", "picture", "depth"]
"""Behind the latents: nothing; a mask and the latents of the masked picture; a picture's latents; its depth."""


def beside_latents(caller: Caller, call: UNetCall, channels: int) -> Beside:
    """What a pass shows the UNet beside its latents.

    Args:
        caller: The pipeline's call.
        call: The pass.
        channels: Of the latents, c.

    Raises:
        ValueError: If it is something that is not known.
    """
    shown = call.sample[:, channels:]
    count = shown.shape[1]
    if not count:
        return "nothing"
    if call.sample.ndim == 4:
        if count == channels and _is(caller.local("image_latents"), shown):
            return "picture"
        if count == 1 and _is(caller.local("depth_mask"), shown):
            return "depth"
        if count == channels + 1 and bool(((shown[:, :1] == 0) | (shown[:, :1] == 1)).all()):
            return "inpainting"
    name = type(caller.pipe).__name__
    if count == channels + 1:
        raise ValueError(
            f"{name} gives its UNet {call.sample.shape[1]} channels with a meaning of their own: channel {channels} is "
            "not a mask of zeros and ones. Expected [latents, mask, latents of the masked picture], as diffusers' "
            "inpainting pipelines have them; a reference cannot be shown in another order."
        )
    raise ValueError(
        f"{name} gives its UNet {call.sample.shape[1]} channels for latents of {channels}, and nothing says what the "
        "others are; expected a mask and a masked picture, or what the pipeline's call keeps as image_latents "
        "(InstructPix2Pix) or depth_mask (depth-to-image)."
    )


def shown_beside(kind: Beside, pipe: Any, clean: Tensor, picture: Callable[[], Image.Image | None]) -> Tensor:
    """What stands beside a reference's latents, (b, channels, h, w): it is its own picture, of which nothing is masked.

    Args:
        kind: As `beside_latents` says.
        pipe: The pipeline, which encodes a picture or estimates its depth as it does with its own.
        clean: The reference's latents, (b, c, h, w).
        picture: Gives the reference at the size of its latents; None: only latents are known.

    Raises:
        ValueError: If the pipeline has no way to tell.
    """
    if kind == "inpainting":
        return torch.cat([torch.zeros_like(clean[:, :1]), clean], dim=1)
    if kind == "picture":
        seen = picture()
        given = unscaled(clean, pipe.vae.config) if seen is None else pipe.image_processor.preprocess(seen)
        return pipe.prepare_image_latents(given, len(given), 1, clean.dtype, clean.device, False).to(clean)
    if kind == "depth":
        seen = picture()
        if seen is None or getattr(pipe, "depth_estimator", None) is None:
            raise ValueError(
                f"{type(pipe).__name__} shows its UNet a depth map, and has none for the reference: it needs a "
                "reference that is a picture (not latents) and a pipeline with a depth_estimator."
            )
        return pipe.prepare_depth_map([seen], None, 1, False, clean.dtype, clean.device).to(clean)
    return clean[:, :0]


def only_where_shown(beside: Tensor, sample: Tensor) -> Tensor:
    """Nothing in rows that are shown nothing themselves, such as the last part of InstructPix2Pix's guidance.

    Args:
        beside: Of the reference, (r, channels, h', w').
        sample: The rows of the pass in whose place it is shown, (r, c + channels, h, w).
    """
    shown = sample[:, sample.shape[1] - beside.shape[1] :].flatten(1).any(dim=1)
    return beside * shown.view(-1, 1, 1, 1).to(beside)


def _is(kept: Any, shown: Tensor) -> bool:
    """Whether what a call keeps is what its sample holds."""
    return isinstance(kept, Tensor) and kept.shape == shown.shape and torch.equal(kept.to(shown), shown)
