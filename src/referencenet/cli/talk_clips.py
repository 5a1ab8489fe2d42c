"""`refnet talk` for systems that draw a film clip by clip of what they hear: Hallo and EMO."""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Wav2Vec2Model

from referencenet.bases.names import BUILTIN
from referencenet.builtin.shipped import ShippedSystem, drawn_portrait
from referencenet.builtin.shipped import speech_model as small_speech_model
from referencenet.cli.console import progress_bar
from referencenet.cli.film_run import Weights, show
from referencenet.cli.options import own_options
from referencenet.cli.portraits import read_portrait
from referencenet.cli.run import load
from referencenet.links.bank import ReferenceBank
from referencenet.media.images import read_image
from referencenet.methods.tiny import tiny_speech_model
from referencenet.pipelines.talk_files import TalkSettings, num_steps, talk_film
from referencenet.preprocess.face_regions import FaceRegions
from referencenet.preprocess.portrait import Portrait
from referencenet.preprocess.speech import WAV2VEC, num_frames_of, read_speech, read_speech_model


def heard_by(pipeline: Any, speech: str | None, checkpoint: Path | None, method: str, samples: np.ndarray) -> Any:
    """The model that hears: the built-in weights have their own, others that of --speech or of the released files.

    Args:
        pipeline: What `need_weights` gave.
        speech: As typed: a folder, or "builtin" for the small model of the built-in weights.
        checkpoint: As typed.
        method: The system.
        samples: What is heard, at 16 kHz.

    Raises:
        FileNotFoundError: If it is nowhere.
        ValueError: If the sound is too short, or the built-in weights are to hear by another model.
    """
    if speech != BUILTIN and not isinstance(pipeline, ShippedSystem):
        return speech_model(None if speech is None else Path(speech), checkpoint, method, samples)
    if speech not in (None, BUILTIN):
        raise ValueError(
            "--speech FOLDER is for released files; the built-in weights hear by --speech builtin, which need not be "
            "said."
        )
    model = small_speech_model()
    read_speech(samples, model)
    return model


def drawn_speaker(reference: str, face: Path | None, embedding: Path | None) -> Portrait | ReferenceBank:
    """Who speaks by the built-in weights: a drawn portrait, whose face the observer sees, or a saved bank.

    Args:
        reference: Path of the picture or bank.
        face: Where the face is, as `FaceRegions.read` takes it; None: the observer says it.
        embedding: As typed.

    Raises:
        ValueError: If an embedding was given, the picture is not square, or the file is of another picture.
    """
    if embedding is not None:
        raise ValueError("--face-embedding is for released files; the built-in weights know faces by their observer.")
    if reference.endswith(".safetensors"):
        return ReferenceBank.load(reference)
    portrait = drawn_portrait(reference)
    if face is None:
        return portrait
    return replace(portrait, regions=FaceRegions.read(face, read_image(portrait.picture).size))


def speaker(reference: str, **given: Any) -> Portrait | ReferenceBank:
    """Who speaks: a portrait, or a saved bank.

    Args:
        reference: Path of the picture or bank.
        given: What else `read_portrait` takes.

    Raises:
        ValueError: If a bank is given with what it holds already.
    """
    if not reference.endswith(".safetensors"):
        return read_portrait(reference, **given)
    options = {"face": "--face", "embedding": "--face-embedding", "person": "--person"}
    named = [option for name, option in options.items() if given[name] is not None]
    if named:
        raise ValueError(f"{reference} is a bank, which knows its face; leave {', '.join(named)} out.")
    return ReferenceBank.load(reference)


def clip_settings(
    panels: Mapping[str, Mapping[str, Any]], method: str, size: tuple[int, int] | None, samples: np.ndarray,
    rate: Fraction, **further: Any,
) -> TalkSettings:  # fmt: skip
    """The film's settings, checked as far as they can be without weights.

    Args:
        panels: Options of the systems.
        method: The system.
        size: Width and height; None: the system's.
        samples: What is heard, at 16 kHz.
        rate: Frames a second.
        further: Fields of `TalkSettings`.

    Raises:
        ValueError: If there are fewer frames than are asked for, or an option is no number.
    """
    width, height = size or (None, None)
    found, wanted = num_frames_of(len(samples), rate), further["num_frames"]
    if wanted is not None and wanted > found:
        raise ValueError(f"--frames is {wanted}, but the sound has {found} frames; ask for fewer.")
    told = own_options(panels, method)
    for name, value in told.items():
        if not math.isfinite(value):
            raise ValueError(f"--{name.replace('_', '-')} is {value}; give a number.")
    return TalkSettings(width=width, height=height, told=told, **further)


def speech_model(speech: Path | None, checkpoint: Path | None, method: str, samples: np.ndarray) -> Wav2Vec2Model:
    """The speech model of --speech or of the released files' folder; refuses a sound that is too short for it.

    Raises:
        FileNotFoundError: If it is in neither; says where to get it.
        ValueError: If the sound is too short.
    """
    places = [speech] if speech is not None else [
        checkpoint / name for name in (WAV2VEC.folder, Path(WAV2VEC.folder or "").name) if checkpoint is not None
    ]  # fmt: skip
    found = next((place for place in places if place is not None and (place / "config.json").is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{method} hears by a speech model, not found at {' or '.join(map(str, places))}; give the folder of "
            f"wav2vec2-base-960h with --speech. Get it from {WAV2VEC.source}."
        )
    model = read_speech_model(found)
    read_speech(samples, model)
    return model


def run_clips(
    weights: Weights, portrait: Portrait | ReferenceBank, samples: np.ndarray, model: Wav2Vec2Model | None, out: Path,
    settings: TalkSettings, rate: Fraction, *, resume: bool, sound: Path | None, overwrite: bool,
    beside: Mapping[str, Any],
) -> TalkSettings:  # fmt: skip
    """Write a film clip by clip, and show how far it is.

    Args:
        weights: The pipeline.
        portrait: Who speaks.
        samples: What is heard, at 16 kHz.
        model: Of the speech; None: a tiny one of random weights.
        out: Where to.
        settings: Of the film.
        rate: Frames a second.
        resume: Go on with a film that was cut short.
        sound: A file whose sound becomes the track.
        overwrite: Take an older film's frames out of the folder.
        beside: What was typed, to stand beside the film with its settings.

    Returns:
        The settings with nothing left open.

    Raises:
        ValueError: If several processes were started together.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "each clip goes on from the one before, so several processes cannot share a film; start one, without "
            "accelerate launch or torchrun."
        )
    pipe = load(
        weights.pipeline, weights.checkpoint, weights.base, weights.device, weights.dtype, offload=weights.offload,
        vae_tiling=weights.vae_tiling, **weights.own,
    )  # fmt: skip
    heard = pipe.hear(samples, tiny_speech_model(pipe) if model is None else model, rate=rate)
    settings = settings.settled(pipe, heard)
    with progress_bar("talking", num_steps(pipe, heard, settings)) as (bar, task):
        talk_film(
            pipe, portrait, heard, out, settings, resume=resume, sound=sound, overwrite=overwrite, beside=beside,
            step_done=partial(show, bar, task),
        )  # fmt: skip
    return settings
