"""A talking portrait on the disk: clips stream into a film with the sound as its track, and a failure costs one clip.

Behind every finished clip its frames and the state of the film are kept beside it. A run that was cut short, by an
error, a full disk or its user, goes on behind the last of them and gives the same film as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from referencenet.links.bank import ReferenceBank
from referencenet.media.films import FilmWriter, check_film_path
from referencenet.media.images import read_image, resize
from referencenet.pipelines.clips import ClipPipeline
from referencenet.pipelines.film_files import (
    num_timesteps,
    pictures_of,
    plain_config,
    read_state,
    with_beside,
    write_state,
)
from referencenet.pipelines.fingerprints import fingerprint, fingerprints_of
from referencenet.pipelines.heard import FrameFeatures, read_features
from referencenet.preprocess.portrait import Portrait
from referencenet.preprocess.speech import RATE, SpeechFeatures


@dataclass(frozen=True, kw_only=True)
class TalkSettings:
    """What decides a talking film's frames, beside its pipeline, portrait and sound.

    Attributes:
        width: In pixels; None: the system's.
        height: Likewise.
        num_frames: None: as many as the sound has.
        num_inference_steps: Denoising steps; None: the system's.
        guidance_scale: 1 and below: none; None: the system's.
        seed: Of the noise.
        side_by_side: Show the portrait beside the result.
        told: Further arguments of the system's stream, such as `head_speed`.
    """

    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0
    side_by_side: bool = False
    told: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def settled(self, pipe: ClipPipeline, audio: Any) -> TalkSettings:
        """With nothing left open.

        Raises:
            ValueError: If the audio has no such features, or fewer frames than are asked for.
        """
        spec, (width, height) = pipe.spec, pipe.sides(self.width, self.height)
        return replace(
            self,
            width=width,
            height=height,
            num_frames=pipe.film_frames(heard_of(pipe, audio), self.num_frames),
            num_inference_steps=spec.steps if self.num_inference_steps is None else self.num_inference_steps,
            guidance_scale=spec.scale if self.guidance_scale is None else self.guidance_scale,
        )


def talk_film(
    pipe: ClipPipeline,
    portrait: Portrait | ReferenceBank,
    audio: Any,
    out: str | Path,
    settings: TalkSettings,
    *,
    resume: bool = False,
    sound: str | Path | None = None,
    overwrite: bool = False,
    beside: Mapping[str, Any] | None = None,
    step_done: Callable[[int], None] | None = None,
) -> Path:
    """Write a film of any length in bounded memory.

    Args:
        pipe: Lets a portrait speak.
        portrait: As its call takes it.
        audio: As its call takes it; what `hear` makes of a sound brings the film's rate, else it is 25 frames a second.
        out: .mp4, .webm, .gif, or a folder for PNGs.
        settings: Of the film.
        resume: Go on where the same call left off; without anything to go on from, begin.
        sound: A file whose sound becomes the track; only for .mp4 and .webm.
        overwrite: Take the frames of an older film out of the folder; files are replaced anyway.
        beside: What else decided the film, to stand beside it as JSON with the settings; None: nothing does.
        step_done: Called with the number of denoising steps so far, of `num_steps`.

    Returns:
        Where the film is.

    Raises:
        ValueError: If arguments do not fit together, or a resumed film was begun with others.
        OSError: If the film cannot be written; finished clips stay for `resume`.
    """
    out = Path(out)
    check_film_path(out, None if sound is None else Path(sound), resume=resume, overwrite=overwrite)
    settings = settings.settled(pipe, audio)
    decisive = _decisive(pipe, portrait, audio, settings)
    saved = read_state(out, decisive) if resume else None
    count = 0 if saved is None else saved["predictions"]

    def counted() -> None:
        nonlocal count
        count += 1
        if step_done is not None:
            step_done(count)

    own = ("width", "height", "num_frames", "num_inference_steps", "guidance_scale", "seed")
    clips = pipe.stream(
        portrait,
        audio,
        state=None if saved is None else saved["state"],
        step_done=counted,
        output_type="pt",
        **{name: getattr(settings, name) for name in own},
        **settings.told,
    )
    keep, rate = 0 if saved is None else saved["frames"], rate_of(audio)
    said = None if beside is None else {**beside, **vars(settings), "rate": rate}
    with FilmWriter(out, rate, keep_frames=keep, sound=sound, overwrite=overwrite, settings=said) as writer:
        panels = _beside(portrait, settings)
        for frames, state in clips:
            writer.add([with_beside(picture, panels) for picture in pictures_of(frames)])
            done = {"frames": writer.num_frames, "predictions": count, "poses": [], "state": state()}
            write_state(out, {"settings": decisive, **done})
        writer.finish()
    return out


def heard_of(pipe: ClipPipeline, audio: Any) -> FrameFeatures:
    """What a pipeline takes for its audio, by frame."""
    config = pipe.audio_projection.config
    return read_features(audio, config.layers, config.channels)


def rate_of(audio: Any) -> Fraction:
    """Frames a second of a film with this audio."""
    return audio.rate if isinstance(audio, SpeechFeatures) else RATE


def num_steps(pipe: ClipPipeline, audio: Any, settings: TalkSettings) -> int:
    """How many denoising steps a film takes.

    Args:
        pipe: Lets a portrait speak.
        audio: What it hears.
        settings: Settled.

    Raises:
        ValueError: If the scheduler has no such steps.
    """
    steps = num_timesteps(pipe, settings.num_inference_steps or pipe.spec.steps)
    heard = heard_of(pipe, audio)
    return len(pipe.cuts(heard.num_frames, settings.num_frames or heard.num_sounding)) * steps


def _beside(portrait: Any, settings: TalkSettings) -> Iterator[list[Image.Image]] | None:
    """What stands beside each frame; None if nothing does."""
    if not settings.side_by_side or not isinstance(portrait, Portrait):
        return None
    size = settings.width or 0, settings.height or 0
    return repeat([resize(read_image(portrait.picture), size, how="stretch")])


def _decisive(pipe: ClipPipeline, portrait: Any, audio: Any, settings: TalkSettings) -> dict[str, str]:
    """What a film must have been begun with to go on with it."""
    known = fingerprints_of(pipe, list(_parts(portrait))) | {"sound": fingerprint(list(_parts(audio)))}
    decided = {name: value for name, value in vars(settings).items() if name != "told"} | {"rate": rate_of(audio)}
    return {name: str(value) for name, value in (decided | dict(settings.told) | plain_config(pipe) | known).items()}


def _parts(given: Any) -> Iterator[Any]:
    """The numbers of which something is made."""
    if isinstance(given, Portrait):
        regions = given.located()
        yield np.asarray(read_image(given.picture))
        yield given.embedding(numbers=None)
        yield from (regions.place, regions.pose, regions.face, regions.lip)
    elif isinstance(given, ReferenceBank):
        for tensors in (given.hidden, given.context):
            yield from (tensors[name] for name in sorted(tensors))
    elif isinstance(given, SpeechFeatures):
        yield given.samples
    elif isinstance(given, str | Path):
        yield np.load(given, mmap_mode="r")
    else:
        yield given
