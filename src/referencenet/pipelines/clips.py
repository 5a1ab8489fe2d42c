"""Systems that make films clip by clip: each clip begins where the last one ended, and only a few frames connect them.

A call and a stream share one body, `clips`, whose memory does not grow with the film. It can be left behind any clip
and taken up again. Letters: b films, f frames of a clip, n motion frames, (h, w) latents, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Wav2Vec2Model

from referencenet.links.bank import ReferenceBank
from referencenet.media.sound import Sound
from referencenet.pipelines.encoders import check_finite_input
from referencenet.pipelines.films import FilmOutput, FilmPipeline
from referencenet.pipelines.heard import FrameFeatures, read_features
from referencenet.pipelines.options import ClipOptions, Settings
from referencenet.pipelines.pictures import unet_options
from referencenet.pipelines.prediction import Call, predicting
from referencenet.pipelines.spec import Canvas
from referencenet.preprocess.speech import RATE, WAV2VEC, SpeechFeatures, read_speech_model

Cuts = Sequence[tuple[int, int]]
"""Clips of a film: first frame, and the one behind the last."""

State = Callable[[], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A finished clip.

    Attributes:
        start: Place of its first frame in the film.
        latents: (b, 4, f, h, w).
        frames: (b, f, 3, H, W) in [0, 1], on the CPU; None where only latents were asked for.
        state: Gives what is needed to go on behind it: numbers and tensors only.
    """

    start: int
    latents: Tensor
    frames: Tensor | None
    state: State


class ClipPipeline(FilmPipeline):
    """Draws films clip by clip, of what it hears. It has the settings `clip_frames` and `motion_frames`.

    Attributes:
        speech: The speech model that its weights were trained with.
        fills_clips: Whether a sound goes on with silence to the end of the last clip, as Hallo's does.
    """

    options = ClipOptions
    speech = WAV2VEC
    fills_clips = False

    def clip_given(
        self, bank: ReferenceBank, given: Mapping[str, Any], cut: tuple[int, int], motion: Tensor | None,
        settings: Settings,
    ) -> dict[str, Any]:  # fmt: skip
        """Condition name to its value in one clip; a system's own.

        Args:
            bank: Of the reference.
            given: Of the whole film.
            cut: First frame of the clip, and the one behind its last.
            motion: What the clip before handed on; None: there is none.
            settings: Of the call.
        """
        raise NotImplementedError

    def handed_on(self, latents: Tensor, frames: Tensor | None) -> Tensor:
        """What the next clip begins from: the last frames as pictures, (b, n, 3, H, W) in [0, 1].

        Args:
            latents: Of a finished clip, (b, 4, f, h, w).
            frames: Its pictures (b, f, 3, H, W), where they were decoded.
        """
        kept = self.config.motion_frames
        return (self.decode(latents[:, :, -kept:], "pt") if frames is None else frames[:, -kept:]).clone()

    def hear(self, sound: Sound, model: Wav2Vec2Model | str | Path, *, rate: Fraction | int = RATE) -> SpeechFeatures:
        """What a sound says, as a call takes it for its audio; features are made piece by piece as clips need them.

        Args:
            sound: A file with sound (wav, mp3, m4a, flac, ogg, a film), or samples at 16 kHz.
            model: wav2vec2-base-960h, which the weights were trained with, or its folder.
            rate: Frames a second of the film; features are interpolated to it before the model's encoder, as published.

        Raises:
            FileNotFoundError: If there is no such file or folder.
            ValueError: If the sound cannot be read, or the model is another one than the weights were trained with.
        """
        speech_model = read_speech_model(model) if isinstance(model, str | Path) else model
        features = SpeechFeatures(
            speech_model.to(self.device), sound, rate=rate, multiple=self.config.clip_frames if self.fills_clips else 1
        )
        projection = self.audio_projection.config
        read_features(features, projection.layers, projection.channels)  # refuses another model
        return features

    def film_frames(self, heard: FrameFeatures, num_frames: int | None) -> int:
        """Frames of a film: as many as are asked for, else those of the sound itself.

        Raises:
            ValueError: If there are fewer, or none is asked for.
        """
        if num_frames is not None and not 1 <= num_frames <= heard.num_sounding:
            raise ValueError(
                f"{num_frames} frames were asked for, but the audio has {heard.num_sounding}; expected 1 to "
                f"{heard.num_sounding}."
            )
        return heard.num_sounding if num_frames is None else num_frames

    def cuts(self, frames: int, wanted: int) -> Cuts:
        """The clips of a film.

        Args:
            frames: Of what drives it.
            wanted: Frames that are asked for; clips behind them are not drawn.
        """
        size = self.config.clip_frames
        return [(start, min(start + size, frames)) for start in range(0, wanted, size)]

    def clip_canvas(self, settings: Settings) -> Canvas:
        """What is drawn, by the call's size or the system's.

        Raises:
            ValueError: If latents cannot have the size.
        """
        width, height = self.sides(settings.width, settings.height)
        self.check_size(width, height)
        return Canvas(width=width, height=height, samples=settings.num_films)

    def clip_film(
        self, reference: Any, given: Mapping[str, Any], heard: FrameFeatures, settings: Settings
    ) -> FilmOutput | tuple[Any]:
        """The body of a call: all clips behind each other, of the kind that was asked for.

        Args:
            reference: As `show` takes it, a bank, or what is shown.
            given: Condition name to what it was given for the whole film.
            heard: Drives the film.
            settings: Of the call.
        """
        canvas = self.clip_canvas(settings)
        wanted = self.film_frames(heard, settings.num_frames)
        cuts, kind = self.cuts(heard.num_frames, wanted), settings.output_type
        found = list(self.clips(reference, given, cuts, canvas, settings, decodes=kind != "latent"))
        if kind == "latent":
            result: Any = torch.cat([clip.latents for clip in found], dim=2)[:, :, :wanted]
        else:
            pictures = [clip.frames for clip in found if clip.frames is not None]
            result = self.films_as(torch.cat(pictures, dim=1)[:, :wanted], kind)
        return FilmOutput(frames=result) if settings.return_dict else (result,)

    def clip_stream(
        self,
        reference: Any,
        given: Mapping[str, Any],
        heard: FrameFeatures,
        settings: Settings,
        *,
        state: Mapping[str, Any] | None = None,
        step_done: Callable[[], None] | None = None,
    ) -> Iterator[tuple[Tensor, State]]:
        """The body of a stream.

        Args:
            reference: As for `clip_film`.
            given: Likewise.
            heard: Likewise.
            settings: Of the call.
            state: Go on where the same call left off.
            step_done: Called after every step.

        Yields:
            Frames (frames, 3, height, width) in [0, 1], and a function that gives the state behind them.

        Raises:
            ValueError: If several films are asked for.
        """
        if settings.num_films != 1:
            raise ValueError(f"num_films is {settings.num_films}, but a stream gives one film; call the pipeline.")
        wanted = self.film_frames(heard, settings.num_frames)
        cuts = self.cuts(heard.num_frames, wanted)
        further = {"state": state, "step_done": step_done}
        for clip in self.clips(reference, given, cuts, self.clip_canvas(settings), settings, **further):
            assert clip.frames is not None
            yield clip.frames[0, : wanted - clip.start], clip.state

    @torch.no_grad()
    def clips(
        self,
        reference: Any,
        given: Mapping[str, Any],
        cuts: Cuts,
        canvas: Canvas,
        settings: Settings,
        *,
        state: Mapping[str, Any] | None = None,
        decodes: bool = True,
        step_done: Callable[[], None] | None = None,
    ) -> Iterator[Clip]:
        """Draw clip after clip; the reference is written once.

        Args:
            reference: As for `clip_film`.
            given: Likewise.
            cuts: The clips.
            canvas: What is drawn.
            settings: Of the call; its generator goes on from clip to clip.
            state: Go on where the same call left off.
            decodes: Whether pictures are wanted; else only the frames that the next clip needs are decoded.
            step_done: Called after every step.
        """
        self._check_film(cuts, canvas, settings)
        done, motion = self._resumed(state, cuts, settings)
        if self.reference_unet is None and (motion is not None or len(cuts) > 1):
            raise ValueError(
                f"{cuts[-1][1]} frames are {len(cuts)} clips, and each but the first is written by the reference_unet, "
                "which this pipeline lacks; load it with all its parts, or ask for fewer frames."
            )
        with self.calling(settings):
            bank = self.written(reference, canvas, settings)["bank"]
            for number in range(done, len(cuts)):
                start, stop = cuts[number]
                self._guidance_scale = settings.guidance_scale  # what a callback changes counts to its clip's end
                now = replace(canvas, frames=stop - start)
                noise = None if settings.latents is None else settings.latents[:, :, start:stop]
                latents = self.start(self.latent_shape(now), replace(settings, latents=noise))
                call = Call(
                    canvas=now,
                    given=self.clip_given(bank, given, cuts[number], motion, settings),
                    guidance=self.spec.guidance,
                    rescale=settings.guidance_rescale,
                    bank=bank,
                    unet_kwargs=unet_options(settings),
                )
                with predicting(self, call) as prediction:

                    def predict(scaled: Tensor, t: Any, begin: Any = prediction.begin) -> Tensor:
                        noise = begin(scaled, t)(None)
                        if step_done is not None:
                            step_done()
                        return noise

                    latents = self.steps(latents, predict, settings)
                is_last = number == len(cuts) - 1 or self.interrupt
                frames = self.decode(latents, "pt") if decodes else None
                if not is_last:
                    motion = self.handed_on(latents, frames)
                yield Clip(start=start, latents=latents, frames=frames, state=_state_behind(number, motion, settings))
                if is_last:
                    return

    def _check_film(self, cuts: Cuts, canvas: Canvas, settings: Settings) -> None:
        """Refuse noise of another shape, and clips that the next one cannot go on from, before anything is drawn."""
        shape = self.latent_shape(replace(canvas, frames=cuts[-1][1]))
        if settings.latents is not None:
            if tuple(settings.latents.shape) != shape:
                raise ValueError(
                    f"latents have shape {tuple(settings.latents.shape)}; expected {shape}: one frame for each that is "
                    "drawn."
                )
            check_finite_input("latents", settings.latents)
        positions = self.unet.config.motion_max_seq_length
        size, kept = self.config.clip_frames, self.config.motion_frames
        if size + kept > positions or (len(cuts) > 1 and size < kept):
            raise ValueError(
                f"clips of {size} frames with {kept} motion frames cannot be; expected at least as many frames as "
                f"motion frames, and together at most {positions}, the motion modules' positions."
            )

    def _resumed(self, state: Mapping[str, Any] | None, cuts: Cuts, settings: Settings) -> tuple[int, Tensor | None]:
        """Number of clips that are done, and the motion frames; generators are set to where they were.

        Raises:
            ValueError: If the state is of another film.
        """
        if state is None:
            return 0, None
        generators = _listed(settings)
        if len(state["generators"]) != len(generators) or not 0 < state["clips"] <= len(cuts):
            raise ValueError(
                f"the state is behind clip {state['clips']} with {len(state['generators'])} generators, but the film "
                f"has {len(cuts)} clips and the call {len(generators)} generators; give what the interrupted call had."
            )
        for generator, saved in zip(generators, state["generators"], strict=True):
            generator.set_state(saved)
        return state["clips"], state["motion"]


def _state_behind(number: int, motion: Tensor | None, settings: Settings) -> State:
    """What is needed to go on behind a clip: taken at once, as generators go on."""
    saved = {
        "clips": number + 1,
        "motion": motion,
        "generators": [generator.get_state() for generator in _listed(settings)],
    }
    return lambda: saved


def _listed(settings: Settings) -> list[torch.Generator]:
    """The call's generators."""
    given = settings.generator
    return [] if given is None else given if isinstance(given, list) else [given]
