"""What passes between nodes: ComfyUI's own kinds turned into ours and back, and the sockets that are ours.

ComfyUI's IMAGE is a float tensor (B, H, W, C) in [0, 1], its MASK (B, H, W), its AUDIO a dictionary of `waveform`,
(B, channels, samples), and `sample_rate`.
"""

# ComfyUI is no dependency: it imports this
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from referencenet.media.images import read_image, read_mask

CATEGORY = "referencenet"

Model = io.Custom("REFNET_MODEL")
"""A pipeline: diffusers' own for `Refer`, or a system's."""
References = io.Custom("REFNET_REFERENCES")
"""A list of `Reference`."""
Bank = io.Custom("REFNET_BANK")
"""What `write` wrote: a `ReferenceBank`, a `BankSeries`, or a list of encoded `Reference`."""
Parts = io.Custom("REFNET_PARTS")
"""A list of `PersonPart`."""


def pictures(images: torch.Tensor) -> list[Image.Image]:
    """An IMAGE batch as pictures."""
    return [read_image(image.clamp(0, 1).movedim(-1, 0)) for image in images.float().cpu()]


def picture(images: torch.Tensor) -> Image.Image:
    """An IMAGE batch of one as a picture.

    Raises:
        ValueError: If it holds several.
    """
    if len(images) != 1:
        raise ValueError(
            f"{len(images)} pictures came in where one is expected; pick one with ComfyUI's ImageFromBatch."
        )
    return pictures(images)[0]


def mask(masks: torch.Tensor) -> Image.Image:
    """A MASK batch of one as a picture: white where it is 1.

    Raises:
        ValueError: If it holds several.
    """
    several = masks if masks.ndim == 3 else masks[None]
    if len(several) != 1:
        raise ValueError(f"{len(several)} masks came in where one is expected.")
    return read_mask(several[0].float().cpu().clamp(0, 1))


def images(result: np.ndarray) -> torch.Tensor:
    """Results of a pipeline, (pictures, H, W, 3) or one film, (1, frames, H, W, 3), as an IMAGE batch."""
    return torch.from_numpy(np.ascontiguousarray(result.reshape(-1, *result.shape[-3:]))).float()


def either(image: torch.Tensor | None, bank: Any, what: str, read: Callable[[torch.Tensor], Any] = picture) -> Any:
    """The reference of a task node: its picture, or what was written of it.

    Raises:
        ValueError: If both or none are connected.
    """
    if (image is None) == (bank is None):
        raise ValueError(f"connect either {what} or a bank that was written of it, not {'both' if bank else 'none'}.")
    return bank if image is None else read(image)


def sampling(*, width: int, height: int, steps: int, guidance: float) -> dict[str, Any]:
    """The widgets of `sampling_inputs` as options of a call, without what is left to the model."""
    found = {"width": width, "height": height, "num_inference_steps": steps}
    options: dict[str, Any] = {name: value for name, value in found.items() if value}
    return options if guidance < 0 else options | {"guidance_scale": guidance}


def draw(pipe: Any, *given: Any, seed: int, **options: Any) -> torch.Tensor:
    """Call a pipeline with ComfyUI's progress bar and its cancel button.

    Args:
        pipe: The pipeline.
        given: What it is called with.
        seed: Of the noise.
        options: Of the call.
    """
    bar = comfy.utils.ProgressBar(1)

    def step_done(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(step + 1, max(pipe.num_timesteps, step + 1))
        return tensors

    pipe.set_progress_bar_config(disable=True)
    done = pipe(
        *given,
        generator=torch.Generator().manual_seed(seed),
        callback_on_step_end=step_done,
        output_type="np",
        **options,
    )
    return images(done.images if hasattr(done, "images") else done.frames)
