"""The tabs whose result is a film: animate, talk, turn."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from referencenet.cli.portraits import read_portrait
from referencenet.cli.talk_clips import speech_model
from referencenet.inputs import regular_file
from referencenet.media.films import Film, frame_rate, write_film
from referencenet.media.images import resize
from referencenet.media.sheets import beside
from referencenet.methods.tiny import tiny_speech_model, tiny_talking_face
from referencenet.pipelines.clips import ClipPipeline
from referencenet.pipelines.film_files import FilmSettings, animate_film, num_predictions, open_films, settled
from referencenet.pipelines.seeds import steps_counted
from referencenet.pipelines.talk_files import TalkSettings, num_steps, talk_film
from referencenet.preprocess.face_mesh import CANVAS, only_face
from referencenet.preprocess.face_track import FaceTrack, read_track
from referencenet.preprocess.head_proxy import HeadFilm, swing
from referencenet.preprocess.speech import RATE, num_frames_of
from referencenet.preprocess.talking_face import TRAINED_RATE, TalkingFace
from referencenet.ui.drawing import Order, sampling
from referencenet.ui.given import Given
from referencenet.ui.jobs import Job
from referencenet.ui.models import Model, kind_of

FILM = "film.mp4"
TURNING = 10  # frames per second, of the published demonstration
MOST_VIEWS = 64


def animate(given: Given, model: Model) -> Order:
    """The person of a picture in a film of drawings."""
    kind = kind_of("animate", model)
    person = given.picture("reference", "a picture of the person")
    drawings = [given.film("poses", "a film of drawings")]
    if kind.num_driving > 1:
        drawings.append(given.film("poses_2", f"a second film of drawings, of the mouth: {model.system} needs it"))
    settings = _film_settings(given) | {"rate": _rate(given)}
    films = open_films(kind, drawings, FilmSettings(**settings))

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        return _film(pipe, job, folder, person, films, FilmSettings(**settings))

    return Order(model=model, draw=draw, settings=settings, files=given.files)


def talk(given: Given, model: Model) -> Order:
    """The person of a portrait says what is in a sound."""
    kind = kind_of("talk", model)
    if issubclass(kind, ClipPipeline):
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
    person = given.picture("reference", "a portrait: head, and neck")
    seed, rate = given.seed(), _rate(given) or Fraction(TURNING)
    if given.maybe_file("cameras") is not None:
        seen: Any = [
            resize(picture, size, how="stretch") for picture in given.film("cameras", "pictures of the cameras")
        ]
        told: dict[str, Any] = {"views": len(seen)}
    else:
        views = given.whole("views", 16, 1, MOST_VIEWS)
        yaw = given.number("yaw_from", -40, -90, 90), given.number("yaw_to", 40, -90, 90)
        pitch = given.number("pitch", 0, -45, 45)
        if yaw[0] > yaw[1]:
            raise ValueError(f"the cameras go from {yaw[0]:g} to {yaw[1]:g} degrees; give the smaller angle first.")
        seen = HeadFilm(swing(views, yaw=yaw, pitch=(pitch, pitch)), size)  # drawn when the job is
        told = {"views": views, "yaw": yaw, "pitch": pitch}
    settings = told | options | {"prompt": given.text("prompt"), "seed": seed, "rate": rate}
    side_by_side = given.chosen("side_by_side")

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        cameras = [*seen]
        pictures = pipe(
            person, cameras, settings["prompt"], **options, generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=steps_counted(job.progress),
        ).frames[0]  # fmt: skip
        if side_by_side:
            first = resize(person, size, how="stretch")
            pictures = [beside([first, *both]) for both in zip(cameras, pictures, strict=True)]
        return [write_film(pictures, folder / FILM, rate)]

    return Order(model=model, draw=draw, settings=settings, files=given.files)


def _talk_by_clips(given: Given, model: Model) -> Order:
    """A film by a system that draws clip by clip what it hears."""
    given.picture("reference", "a portrait")
    samples = given.sound("sound", "a sound: what is said")
    rate = _rate(given) or Fraction(RATE)
    chosen = _film_settings(given)
    width, height = chosen["width"], chosen["height"]
    if width != height:
        raise ValueError(f"the size is {width}x{height}; {model.system} draws squares, such as 512x512.")
    _check_frames(chosen["num_frames"], samples, rate)
    settings = TalkSettings(**chosen)
    face, embedding = given.maybe_file("face"), given.maybe_file("embedding")
    portrait = read_portrait(str(given.files["reference"]), face, embedding, None, None, None)
    checkpoint = None if model.place is None else Path(model.place)
    hears = None if checkpoint is None else speech_model(None, checkpoint, str(model.system), samples)
    sound = given.files["sound"]

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        heard = pipe.hear(samples, hears or tiny_speech_model(pipe), rate=rate)
        plan = settings.settled(pipe, heard)
        steps = num_steps(pipe, heard, plan)
        done = talk_film(
            pipe, portrait, heard, folder / FILM, plan, sound=sound, step_done=lambda at: job.progress(at, steps)
        )  # fmt: skip
        return [done]

    return Order(model=model, draw=draw, settings=chosen | {"rate": rate}, files=given.files)


def _film_settings(given: Given) -> dict[str, Any]:
    """Settings that all films have, by the names of `FilmSettings`."""
    size = given.size()
    width, height = ([int(side) for side in size.lower().split("x")] * 2)[:2] if size else (None, None)
    return {
        "width": width, "height": height, "num_frames": given.whole("frames", None, 1, 10_000),
        "num_inference_steps": given.steps(), "guidance_scale": given.guidance(), "seed": given.seed(),
        "side_by_side": given.chosen("side_by_side"),
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
