"""What passes between nodes: ComfyUI's own kinds turned into ours and back, and the sockets that are ours.

ComfyUI's IMAGE is a float tensor (B, H, W, C) in [0, 1], its MASK (B, H, W), its AUDIO a dictionary of `waveform`,
(B, channels, samples), and `sample_rate`.
"""

# ComfyUI is no dependency: it imports this
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from referencenet.builtin.shipped import drawn_portrait
from referencenet.media.images import read_image, read_mask
from referencenet.media.sound import read_sound
from referencenet.preprocess.mediapipe import FaceMesh
from referencenet.preprocess.model_files import default_folder
from referencenet.preprocess.portrait import Portrait

CATEGORY = "referencenet"

Model = io.Custom("REFNET_MODEL")
"""A pipeline: diffusers' own for `Refer`, or a system's."""
References = io.Custom("REFNET_REFERENCES")
"""A list of `Reference`."""
Bank = io.Custom("REFNET_BANK")
"""What `write` wrote: a `ReferenceBank`, a `BankSeries`, or a list of encoded `Reference`."""
Parts = io.Custom("REFNET_PARTS")
"""A list of `PersonPart`."""
Speech = io.Custom("REFNET_SPEECH")
"""What hears: a `Wav2Vec2Model`, or AniPortrait's `TalkingFace`."""

DRAWN = "drawn"
"""In the place of a face's file: a drawn portrait, whose face the built-in observer sees."""
FACE = (
    "A file in ComfyUI's input folder, or a path: landmarks for Hallo and EMO (empty: the face is looked for; drawn: "
    "of a drawn portrait), a face track for AniPortrait, which needs it."
)


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


def portrait_of(shown: Image.Image, face: str) -> Portrait:
    """A portrait with its face.

    Args:
        shown: Of one person, RGB.
        face: File of landmarks, `drawn`, or nothing: the face is looked for, and a square is cut around it.

    Raises:
        FileNotFoundError: If there is no such file, or the networks that look for faces were not fetched.
        ValueError: If there is no face, or the file is of none.
    """
    if face == DRAWN:
        return drawn_portrait(shown)
    if face.strip():
        return Portrait(picture=shown, landmarks=input_file(face))
    return Portrait.found(shown, FaceMesh(default_folder()))


def input_file(name: str) -> Path:
    """Where a file lies: in ComfyUI's input folder, or where its path says."""
    path = Path(name.strip()).expanduser()
    inside = Path(folder_paths.get_input_directory()) / path
    return path if path.exists() or not inside.exists() else inside


def samples(sound: Mapping[str, Any]) -> np.ndarray:
    """An AUDIO batch of one as mono samples at 16 kHz.

    Raises:
        ValueError: If it holds several sounds, or none.
    """
    waveform = sound["waveform"]
    if len(waveform) != 1:
        raise ValueError(f"{len(waveform)} sounds came in where one is expected.")
    return read_sound(waveform[0].float(), sound["sample_rate"])


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


def draw(pipe: Any, *given: Any, seed: int, rounds: int = 1, **options: Any) -> torch.Tensor:
    """Call a pipeline with ComfyUI's progress bar and its cancel button.

    Args:
        pipe: The pipeline.
        given: What it is called with.
        seed: Of the noise.
        rounds: How often the call goes through its steps: once for each clip of a film.
        options: Of the call.
    """
    bar = comfy.utils.ProgressBar(1)
    done = 0

    def step_done(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal done
        comfy.model_management.throw_exception_if_processing_interrupted()
        done += 1
        bar.update_absolute(done, max(pipe.num_timesteps * rounds, done))
        return tensors

    pipe.set_progress_bar_config(disable=True)
    result = pipe(
        *given,
        generator=torch.Generator().manual_seed(seed),
        callback_on_step_end=step_done,
        output_type="np",
        **options,
    )
    return images(result.images if hasattr(result, "images") else result.frames)
