"""The options that every system's call takes, and what becomes of those that were left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from torch import Tensor

from referencenet.links.turns import Busy, check_busy
from referencenet.pipelines.encoders import Generators
from referencenet.sampling.windows import Windows
from referencenet.telling import nearest

Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any] | None]
OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class Options(TypedDict, total=False):
    """Arguments that every system's call takes; all may be left out.

    Attributes:
        width: Of the results in pixels; by default the system's, or that of its condition.
        height: Likewise.
        num_inference_steps: Denoising steps.
        guidance_scale: 1 and below: no guidance.
        guidance_rescale: phi of Lin et al. 2023, section 3.4; 0: none.
        eta: Of DDIM and its relatives; by default the system's.
        generator: For everything that is drawn at random: one, or one per result.
        latents: The first noise, (results, 4, h, w), or (results, 4, frames, h, w) for films.
        half_precision_bank: Round the bank to float16, as several published programs do even in float32.
        write_every: Of writers that run at every step: run at every so many steps. Above 1 an approximation.
        output_type: "pil", "np", "pt" or "latent".
        return_dict: False gives a tuple.
        cross_attention_kwargs: Such as {"scale": 0.5} for a LoRA.
        callback_on_step_end: As in diffusers: (pipeline, step, timestep, tensors) to changed tensors or None.
        callback_on_step_end_tensor_inputs: Names of the tensors that it gets.
        busy: While another thread is at the pipeline, or at another one with the same denoiser or scheduler: "refuse"
            raises BusyError, "wait" waits its turn.
    """

    width: int | None
    height: int | None
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float
    eta: float
    generator: Generators
    latents: Tensor | None
    half_precision_bank: bool
    write_every: int
    output_type: str
    return_dict: bool
    cross_attention_kwargs: dict[str, Any] | None
    callback_on_step_end: Callback | None
    callback_on_step_end_tensor_inputs: Sequence[str]
    busy: Busy


class PictureOptions(Options, total=False):
    """Arguments of every system that makes pictures.

    Attributes:
        num_images_per_prompt: Results per person, pose or prompt.
    """

    num_images_per_prompt: int


class FilmOptions(Options, total=False):
    """Arguments of every system that makes films.

    Attributes:
        num_frames: Use the first so many drawings; by default all.
        num_films: Films of the same drawings, each from its own noise.
        windows: How films are cut; Windows(published=True) for the published way.
        across_processes: Spread windows and decoding over the processes of `accelerate launch` or `torchrun`; all of
            them are to call with the same arguments, and all get the film that one would make.
    """

    num_frames: int | None
    num_films: int
    windows: Windows | None
    across_processes: bool


class ClipOptions(Options, total=False):
    """Arguments of every system that makes films clip by clip.

    Attributes:
        num_frames: Cut the film to so many frames; by default it is as long as what drives it.
        num_films: Films of the same portrait and audio, each from its own noise.
    """

    num_frames: int | None
    num_films: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a call, settled; names as in `Options`, `PictureOptions`, `FilmOptions` and `ClipOptions`."""

    width: int | None = None
    height: int | None = None
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float = 0.0
    eta: float = 0.0
    generator: Generators = None
    latents: Tensor | None = None
    half_precision_bank: bool = False
    write_every: int = 1
    output_type: str = "pil"
    return_dict: bool = True
    cross_attention_kwargs: dict[str, Any] | None = None
    callback_on_step_end: Callback | None = None
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)
    busy: Busy = "refuse"
    num_images_per_prompt: int = 1
    num_frames: int | None = None
    num_films: int = 1
    windows: Windows | None = None
    across_processes: bool = False


def settle(pipe: Any, options: Mapping[str, Any]) -> Settings:
    """Options with what was left open; refuses what would fail only after the last step.

    Args:
        pipe: The pipeline that is called.
        options: As its caller gave them.

    Raises:
        TypeError: If an option is unknown.
        ValueError: If a value is out of range.
    """
    known = set(pipe.options.__annotations__)
    for name in sorted(set(options) - known):
        near = nearest(name, known)
        raise TypeError(
            f"{type(pipe).__name__} has no argument {name!r}; "
            f"{f'did you mean {near!r}?' if near is not None else f'there are {sorted(known)}.'}"
        )
    defaults = {"num_inference_steps": pipe.spec.steps, "guidance_scale": pipe.spec.scale, "eta": pipe.spec.eta}
    settings = Settings(**defaults | dict(options))
    check_busy(settings.busy)
    for name in ("num_inference_steps", "num_images_per_prompt", "num_films", "write_every"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} is {getattr(settings, name)}; expected at least 1.")
    if settings.write_every > 1 and not pipe.writes_each_step:
        raise ValueError("write_every is for writers that run at every step; this system has none.")
    if settings.half_precision_bank and pipe.spec.link is None:
        raise ValueError("half_precision_bank is for systems that read a bank; this one has none.")
    if settings.output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type is {settings.output_type!r}; expected one of {list(OUTPUT_TYPES)}.")
    unknown = sorted(set(settings.callback_on_step_end_tensor_inputs) - set(pipe._callback_tensor_inputs))
    if unknown:
        raise ValueError(
            f"callback_on_step_end_tensor_inputs has {unknown}; expected some of {pipe._callback_tensor_inputs}."
        )
    return settings
