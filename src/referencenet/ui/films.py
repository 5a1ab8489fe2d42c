"""The tabs whose result is a film: animate, talk, turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from referencenet.builtin.shipped import speech_model as small_speech_model
from referencenet.cli.portraits import read_portrait
from referencenet.cli.run import drawn_heads_of
from referencenet.cli.talk_clips import drawn_speaker, speech_model
from referencenet.inputs import regular_file
from referencenet.media.films import Film, frame_rate, write_film
from referencenet.media.fitting import fitted
from referencenet.media.images import resize
from referencenet.media.sheets import beside
from referencenet.methods.tiny import tiny_speech_model, tiny_talking_face
from referencenet.pipelines.clips import ClipPipeline
from referencenet.pipelines.film_files import FilmSettings, animate_film, num_predictions, open_films, settled
from referencenet.pipelines.seeds import steps_counted
from referencenet.pipelines.talk_files import TalkSettings, num_steps, talk_film
from referencenet.preprocess.face_mesh import CANVAS, only_face
from referencenet.preprocess.face_track import FaceTrack, read_track
from referencenet.preprocess.head_proxy import swing
from referencenet.preprocess.speech import RATE, num_frames_of
from referencenet.preprocess.talking_face import TRAINED_RATE, TalkingFace
from referencenet.ui.drawing import Order, at_size, sampling
from referencenet.ui.driving import driven
from referencenet.ui.given import Given
from referencenet.ui.jobs import Job
from referencenet.ui.models import LOADING, Model, kind_of, offered

FILM = "film.mp4"
TURNING = 10  # frames per second, of the published demonstration
MOST_VIEWS = 64


def animate(given: Given, model: Model) -> Order:
    """The person of a picture in a film of drawings."""
    kind = kind_of("animate", model)
    person = given.picture("reference", "a picture of the person")
    settings = _film_settings(given) | {"rate": _rate(given)}
    plan = FilmSettings(**settings)
    found = driven(given, str(model.system), kind.num_driving, person, plan)
    if given.values.get("poses"):
        open_films(kind, found()[1], plan)  # what is wrong with drawings is told now

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        subject, drawings = found()
        job.check()
        return _film(pipe, job, folder, subject, open_films(pipe, drawings, plan), plan)

    return Order(model=model, draw=draw, settings=settings, files=given.files)


def talk(given: Given, model: Model) -> Order:
    """The person of a portrait says what is in a sound."""
    if issubclass(offered("talk")[str(model.system)], ClipPipeline):
        return _talk_by_clips(given, model)
    person = given.picture("reference", "a portrait")
    samples = given.sound("sound", "a sound: what is said")
    track = _own_face(given.file("face", f"the portrait's own face track, .npz or .json: {model.system} moves it"))
    settings = _film_settings(given) | {"rate": _rate(given) or Fraction(TRAINED_RATE)}
    settings["width"], settings["height"] = settings["width"] or CANVAS, settings["height"] or CANVAS
    sound = given.files["sound"]
    _check_frames(settings["num_frames"], samples, settings["rate"])

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        speaking = tiny_talking_face() if model.place is None else TalkingFace.from_published(model.place)
        drawings = speaking.to(pipe.device)(
            samples, track, identity=speaking.identity_of(settings["seed"]), rate=settings["rate"],
            width=settings["width"], height=settings["height"],
        )  # fmt: skip
        job.check()
        films = open_films(pipe, [drawings], FilmSettings(**settings))
        return _film(pipe, job, folder, person, films, FilmSettings(**settings), sound)

    return Order(model=model, draw=draw, settings=settings, files=given.files)


def turn(given: Given, model: Model) -> Order:
    """The person of a portrait from other cameras."""
    kind = kind_of("turn", model)
    options = sampling(given, kind.spec)
    size = options["width"], options["height"]
    fit = given.fit()
    person = at_size(given.picture("reference", "a portrait: head, and neck"), size, fit)
    seed, rate = given.seed(), _rate(given) or Fraction(TURNING)
    if given.maybe_file("cameras") is not None:
        shown = given.film("cameras", "pictures of the cameras")
        pictures = [fitted(picture, size, fit or "stretch", "black") for picture in shown]
        seen: Callable[[], list[Image.Image]] = partial(list, pictures)
        told: dict[str, Any] = {"views": len(pictures)}
    else:
        views = given.whole("views", 16, 1, MOST_VIEWS)
        yaw = given.number("yaw_from", -40, -90, 90), given.number("yaw_to", 40, -90, 90)
        pitch = given.number("pitch", 0, -45, 45)
        if yaw[0] > yaw[1]:
            raise ValueError(f"the cameras go from {yaw[0]:g} to {yaw[1]:g} degrees; give the smaller angle first.")
        seen = partial(drawn_heads_of(kind), swing(views, yaw=yaw, pitch=(pitch, pitch)), size)  # when the job is drawn
        told = {"views": views, "yaw": yaw, "pitch": pitch}
    settings = told | options | {"prompt": given.text("prompt"), "fit": fit, "seed": seed, "rate": rate}
    side_by_side = given.chosen("side_by_side")

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        cameras = seen()
        turned = pipe(
            person, cameras, settings["prompt"], **options, generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=steps_counted(job.progress),
        ).frames[0]  # fmt: skip
        if side_by_side:
            first = resize(person, size, how="stretch")
            turned = [beside([first, *both]) for both in zip(cameras, turned, strict=True)]
        return [write_film(turned, folder / FILM, rate)]

    return Order(model=model, draw=draw, settings=settings, files=given.files)


def _talk_by_clips(given: Given, model: Model) -> Order:
    """A film by a system that draws clip by clip what it hears."""
    given.picture("reference", "a portrait")
    samples = given.sound("sound", "a sound: what is said")
    rate = _rate(given) or Fraction(RATE)
    chosen = _film_settings(given)
    fit = chosen.pop("fit")
    width, height = chosen["width"], chosen["height"]
    if width != height:
        raise ValueError(f"the size is {width}x{height}; {model.system} draws squares, such as 512x512.")
    _check_frames(chosen["num_frames"], samples, rate)
    settings = TalkSettings(**chosen)
    face, embedding = given.maybe_file("face"), given.maybe_file("embedding")
    reference, checkpoint = str(given.files["reference"]), None if model.place is None else Path(model.place)
    with LOADING:
        if model.kind == "built in":
            portrait, hears = drawn_speaker(reference, face, embedding), small_speech_model()
        else:
            portrait = read_portrait(reference, face, embedding, None, given.person(), fit)
            hears = None if checkpoint is None else speech_model(None, checkpoint, str(model.system), samples)
    sound = given.files["sound"]

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        with LOADING:
            hearing = hears or tiny_speech_model(pipe)
        heard = pipe.hear(samples, hearing, rate=rate)
        plan = settings.settled(pipe, heard)
        steps = num_steps(pipe, heard, plan)
        done = talk_film(
            pipe, portrait, heard, folder / FILM, plan, sound=sound, step_done=lambda at: job.progress(at, steps)
        )  # fmt: skip
        return [done]

    return Order(model=model, draw=draw, settings=chosen | {"rate": rate, "fit": fit}, files=given.files)


def _film_settings(given: Given) -> dict[str, Any]:
    """Settings that all films have, by the names of `FilmSettings`."""
    size = given.size()
    width, height = ([int(side) for side in size.lower().split("x")] * 2)[:2] if size else (None, None)
    return {
        "width": width, "height": height, "num_frames": given.whole("frames", None, 1, 10_000),
        "num_inference_steps": given.steps(), "guidance_scale": given.guidance(), "seed": given.seed(),
        "side_by_side": given.chosen("side_by_side"), "fit": given.fit(),
    }  # fmt: skip


def _rate(given: Given) -> Fraction | None:
    """Frames per second; None: the system's, or the film's."""
    found = given.number("fps", None, 1, 120)
    return None if found is None else frame_rate(found)


def _check_frames(wanted: int | None, samples: np.ndarray, rate: Fraction) -> None:
    found = num_frames_of(len(samples), rate)
    if wanted is not None and wanted > found:
        raise ValueError(f"{wanted} frames were asked for, but the sound has {found}; ask for fewer.")


def _own_face(path: Path) -> FaceTrack:
    """The face track of one frame in a file."""
    track = read_track(regular_file(path, "face track"))
    only_face(track.vertices, path)
    return track


def _film(
    pipe: Any, job: Job, folder: Path, person: Image.Image, films: list[Any], settings: FilmSettings,
    sound: Path | None = None,
) -> list[Path]:  # fmt: skip
    """Draw a film, and say how far it is."""
    plan = settled(pipe, films, settings)
    steps = num_predictions(pipe, plan)
    job.progress(0, steps)
    fresh = [Film(film.path) if isinstance(film, Film) else film for film in films]
    done = animate_film(
        pipe, person, fresh, folder / FILM, replace(plan), sound=sound, step_done=lambda at: job.progress(at, steps)
    )  # fmt: skip
    return [done]
