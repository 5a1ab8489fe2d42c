"""Systems that make films: windows over frames, all at once or as a stream, by one body.

`film` denoises the whole film step by step, so callbacks see all of it; `stream` runs a wave through a film of any
length and gives frames as they are finished. Both prepare a call in `_filming` and predict by the same `Prediction`.
Letters: b films, f frames, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from referencenet.media.films import FrameSource, frames_of
from referencenet.media.images import Picture, read_image, to_tensor
from referencenet.pipelines.encoders import check_finite_input, decode_latents, stretched
from referencenet.pipelines.lifecycle import ReferencePipeline
from referencenet.pipelines.options import FilmOptions, Settings
from referencenet.pipelines.passes import Guidance
from referencenet.pipelines.pictures import unet_options
from referencenet.pipelines.prediction import Call, Prediction, predicting
from referencenet.pipelines.spec import Canvas
from referencenet.sampling.processes import ALONE, Processes
from referencenet.sampling.stream import FilmStream, denoise_step, frame_noise
from referencenet.sampling.windows import Window, Windows, total_weights

Drawings = str | Path | np.ndarray | Tensor | Sequence[Picture] | FrameSource
"""A film of drawings, one per frame."""

Read = Callable[[int, int], Sequence[Tensor]]
"""Frames [start, stop) of the driving films: one (frames, 3, height, width) in [0, 1] per film; called in order."""


@dataclass
class FilmOutput(BaseOutput):
    """Films as asked for by `output_type`.

    Attributes:
        frames: Pictures per film, an array (films, frames, height, width, 3), a tensor (films, frames, 3, height,
            width), or latents (films, 4, frames, h, w).
    """

    frames: list[list[Image.Image]] | np.ndarray | Tensor


class FilmPipeline(ReferencePipeline):
    """Draws films."""

    options = FilmOptions
    fit: ClassVar[Callable[[Picture, tuple[int, int]], Image.Image]] = staticmethod(stretched)
    """How drawings come to the film's (width, height)."""
    num_driving: ClassVar[int] = 1
    """Films of drawings that a call takes."""

    @torch.no_grad()
    def film(
        self,
        reference: Any,
        name: str,
        drawings: Any,
        options: Mapping[str, Any],
        *,
        guidance: Guidance | None = None,
        begun: Callable[[Tensor, Call], Tensor] | None = None,
        **given: Any,
    ) -> Any:
        """The body of a system's call.

        Args:
            reference: As `show` takes it, a bank, or timestep to bank.
            name: Of the condition that the drawings are for.
            drawings: A film of drawings, or one for each of `num_driving`.
            options: Of the call.
            guidance: Of the call; None: the system's.
            begun: Makes of the first noise (b, c, f, h, w) what the first step begins with; None: the noise itself.
            given: Further conditions by name.
        """
        settings = self.settle(options)
        films, canvas = self.read_films(drawings, settings)
        given[name] = self._looked_at(lambda start, stop: [film[start:stop] for film in films])
        processes = Processes.started() if settings.across_processes else ALONE
        with self.calling(settings), self._filming(reference, given, canvas, settings, guidance) as filming:
            prediction, windows = filming
            prediction.admit(0, canvas.frames or 1)
            latents = self.start(self.latent_shape(canvas), settings)
            latents = latents if begun is None else begun(latents, prediction.call)
            weights = total_weights(windows, canvas.frames or 1).to(latents)

            def predict(scaled: Tensor, t: Any) -> Tensor:
                return denoise_step(prediction.begin(scaled, t), scaled, windows, processes) / weights

            latents = self.steps(latents, predict, settings, processes.as_main)
            frames = self.decode(latents, settings.output_type, processes)
        return FilmOutput(frames=frames) if settings.return_dict else (frames,)

    @torch.no_grad()
    def film_stream(
        self,
        reference: Any,
        name: str,
        read: Read,
        options: Mapping[str, Any],
        *,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
        step_done: Callable[[], None] | None = None,
        guidance: Guidance | None = None,
        **given: Any,
    ) -> Iterator[tuple[Tensor, Callable[[], dict[str, Any]]]]:
        """The body of a system's stream: a film of any length in bounded memory.

        Args:
            reference: As for `film`.
            name: Of the condition that the drawings are for.
            read: Gives the drawings.
            options: Of the call; with width, height and num_frames.
            seed: Of the noise. Unlike with a generator, a frame's noise does not depend on the film's length.
            state: Go on where the same call left off, with as many processes or others.
            step_done: Called after every prediction of a window, whichever process made it.
            guidance: Of the call; None: the system's.
            given: Further conditions by name.

        Yields:
            Frames (frames, 3, height, width) in [0, 1], and a function that gives the state behind them.
        """
        settings = replace(self.settle(options), generator=torch.Generator().manual_seed(seed))
        width, height, num_frames = settings.width, settings.height, settings.num_frames
        if width is None or height is None or num_frames is None:
            raise ValueError("a stream needs width, height and num_frames: its drawings come piece by piece.")
        if settings.windows is not None and settings.windows.published:
            raise ValueError(
                "published windows wrap around the film's end, so they need the whole film at once; call the pipeline, "
                "or leave `windows` out."
            )
        if settings.windows is None and self.spec.windows is not None and self.spec.windows.published:
            settings = replace(settings, windows=Windows(size=self.spec.windows.size))
        self.check_size(width, height)
        canvas = Canvas(width=width, height=height, frames=num_frames)
        processes = Processes.started() if settings.across_processes else ALONE
        given[name] = self._looked_at(read)
        with (
            self.calling(settings),
            self._filming(reference, given, canvas, settings, guidance, keeps_banks=True) as parts,
        ):
            prediction, windows = parts
            shape = self.latent_shape(replace(canvas, frames=1))
            self.scheduler.set_timesteps(settings.num_inference_steps, device=self._execution_device)

            def admit(start: int, stop: int) -> Tensor:
                prediction.admit(start, stop)
                noise = self.frame_noise(seed, range(start, stop), (*shape[:2], *shape[3:]))
                return noise.to(self._execution_device) * self.scheduler.init_noise_sigma

            stream = FilmStream(
                windows,
                scheduler=self.scheduler,
                begin=prediction.begin,
                admit=admit,
                drop_before=prediction.drop_before,
                step_kwargs=lambda generator: self.step_options(settings, generator),
                seed=seed,
                predicted=step_done,
                processes=processes,
            )
            if state is not None:
                stream.resume(state)
            for stretch in stream:
                yield self.decode(stretch.latents, "pt", processes)[0], stream.state

    def check_drawings(self, films: Sequence[Tensor]) -> None:
        """Refuse, or warn of, drawings of another kind by a film's first frames; a system that can tell says so here.

        Args:
            films: The first drawings, (frames, 3, height, width) in [0, 1] of each driving film.
        """

    def _looked_at(self, read: Read) -> Read:
        """The same drawings, whose first ones are checked."""

        def look(start: int, stop: int) -> Sequence[Tensor]:
            films = read(start, stop)
            if start == 0:
                self.check_drawings(films)
            return films

        return look

    @contextmanager
    def _filming(
        self,
        reference: Any,
        given: Mapping[str, Any],
        canvas: Canvas,
        settings: Settings,
        guidance: Guidance | None,
        *,
        keeps_banks: bool = False,
    ) -> Generator[tuple[Prediction, list[Window]]]:
        """A call with its reference written and its denoiser linked, and the windows of the film."""
        windows = self.cut(settings.windows, canvas.frames or 1)
        call = Call(
            canvas=canvas,
            given=given,
            guidance=guidance or self.spec.guidance,
            rescale=settings.guidance_rescale,
            keeps_banks=keeps_banks,
            windows=() if keeps_banks else windows,  # a stream begins a step for every window
            unet_kwargs=unet_options(settings),
            **self.written(reference, canvas, settings),
        )
        with predicting(self, call) as prediction:
            yield prediction, windows

    def cut(self, windows: Windows | None, frames: int) -> list[Window]:
        """The windows of a film of so many frames.

        Raises:
            ValueError: If they are larger than the motion modules have positions for.
        """
        windows = windows or self.spec.windows or Windows()
        positions = getattr(self.unet.config, "motion_max_seq_length", None)
        if positions is not None and windows.size > positions:
            raise ValueError(
                f"windows of {windows.size} frames exceed the motion modules' {positions} positions; make them smaller."
            )
        return windows.of(frames)

    def frame_noise(self, seed: int, frames: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """The first noise of a stream's frames, (b, c, frames, h, w); a system whose frames share it says so here."""
        return frame_noise(seed, frames, shape)

    def latent_shape(self, canvas: Canvas) -> tuple[int, int, int, int, int]:
        """(b, channels, f, h, w)."""
        h, w = canvas.height // self.vae_scale_factor, canvas.width // self.vae_scale_factor
        return canvas.samples, self.unet.config.out_channels, canvas.frames or 1, h, w

    def read_films(self, drawings: Any, settings: Settings) -> tuple[list[Tensor], Canvas]:
        """Read the driving films, which must be of one length: each (frames, 3, height, width) in [0, 1].

        Raises:
            ValueError: If their number or length does not fit.
        """
        films = [drawings] if self.num_driving == 1 else drawings
        if not isinstance(films, list | tuple) or len(films) != self.num_driving:
            raise ValueError(
                f"{type(self).__name__} takes {self.num_driving} films of drawings; give a tuple of so many."
            )
        films = [list(film) if isinstance(film, Iterator) else film for film in films]  # what is read only once
        width, height = settings.width, settings.height
        if width is None or height is None:
            first = read_image(next(frames_of(films[0])))
            width, height = self.size_for(first.size, width, height)
        self.check_size(width, height)
        read = [drawing_tensor(film, width, height, settings.num_frames, self.fit) for film in films]
        lengths = {film.shape[0] for film in read}
        asked = settings.num_frames
        if len(lengths) > 1 or (asked is not None and lengths != {asked}):
            wanted = f"num_frames={asked}" if asked is not None else "equally many in each film"
            raise ValueError(
                f"the films of drawings have {sorted(lengths)} frames; expected {wanted}. Give more drawings or ask "
                "for fewer."
            )
        return read, Canvas(width=width, height=height, samples=settings.num_films, frames=lengths.pop())

    def size_for(self, drawing: tuple[int, int], width: int | None, height: int | None) -> tuple[int, int]:
        """(width, height) of a film whose drawings have the given size: the system's, or theirs, rounded down."""
        multiple = self.size_multiple
        width, height = self.sides(width, height)
        return width or drawing[0] // multiple * multiple, height or drawing[1] // multiple * multiple

    @torch.no_grad()
    def decode(self, latents: Tensor, output_type: str, processes: Processes = ALONE) -> Any:
        """Latents (b, 4, f, h, w) to films of the kind that was asked for, decoded frame by frame.

        Args:
            latents: Of the films, (b, 4, f, h, w).
            output_type: "pt" is (b, f, 3, height, width) in [0, 1].
            processes: Each decodes its share of the frames; all get every picture.
        """
        if output_type == "latent":
            return latents
        jobs = [partial(self._decode_frame, frame) for frame in latents.transpose(1, 2).flatten(0, 1).split(1)]
        blank = torch.zeros(1, 3, *(side * self.vae_scale_factor for side in latents.shape[-2:]))
        pictures = torch.cat(list(processes.each(jobs, blank))).unflatten(0, (latents.shape[0], latents.shape[2]))
        return self.films_as(pictures, output_type)

    def films_as(self, pictures: Tensor, output_type: str) -> Any:
        """Films (b, f, 3, height, width) in [0, 1], of the kind that was asked for."""
        if output_type == "pt":
            return pictures
        films = [self.picture_processor.postprocess(film, output_type, [False] * len(film)) for film in pictures]
        return np.stack(films) if output_type == "np" else films

    def _decode_frame(self, latents: Tensor) -> Tensor:
        """(1, 4, h, w) to (1, 3, height, width) in [0, 1] on the CPU."""
        return (decode_latents(self, latents).cpu() / 2 + 0.5).clamp(0, 1)


def drawing_tensor(
    film: Drawings,
    width: int,
    height: int,
    limit: int | None = None,
    fit: Callable[[Picture, tuple[int, int]], Image.Image] = stretched,
) -> Tensor:
    """Drawings brought to the film's size, stretched by default: (frames, 3, height, width) in [0, 1].

    A float tensor of that size is taken as it is.
    """
    if isinstance(film, Tensor) and film.is_floating_point() and tuple(film.shape[1:]) == (3, height, width):
        check_finite_input("a film of drawings", film[:limit])
        return film[:limit].float()
    return torch.stack([to_tensor(fit(frame, (width, height))) for frame in frames_of(film, limit)])
