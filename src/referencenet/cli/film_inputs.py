"""What `refnet animate` reads: the person, and drawings, as they are or made of key points or landmarks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from referencenet.cli.console import note
from referencenet.cli.preprocess import Frames, followed_through
from referencenet.links.bank import ReferenceBank
from referencenet.media.films import DEFAULT_RATE, FrameSource
from referencenet.media.images import read_image
from referencenet.pipelines.film_files import FilmSettings
from referencenet.preprocess.body import SkeletonFilm, read_key_points
from referencenet.preprocess.conditions import CONDITIONS
from referencenet.preprocess.densepose import DensePoseFilm
from referencenet.preprocess.face_mesh import CANVAS, FaceMeshFilm, only_face, read_landmarks
from referencenet.preprocess.face_track import crop_portrait
from referencenet.preprocess.model_files import default_folder
from referencenet.preprocess.proportions import fit_bodies


def read_reference(reference: str, landmarks: Path | None = None) -> Any:
    """A picture, or a saved bank.

    Args:
        reference: Its path.
        landmarks: Of the portrait's face, around which it is cut.

    Raises:
        ValueError: If a bank is to be cut, or there are landmarks of several pictures.
    """
    if reference.endswith(".safetensors"):
        if landmarks is not None:
            raise ValueError(f"--own-landmarks cuts a portrait, but {reference} is a bank; give the picture.")
        return ReferenceBank.load(reference)
    picture = read_image(reference)
    if landmarks is None:
        return picture
    return crop_portrait(picture, only_face(read_landmarks(landmarks).landmarks, landmarks))


def driving_films(
    poses: Sequence[Path],
    keypoints: Path | None,
    landmarks: Path | None,
    fit_to: Path | None,
    subject: Any,
    settings: FilmSettings,
    found: FrameSource | None = None,
    person: int | None = None,
) -> list[Path | FrameSource]:
    """The films of drawings: as they are given, or drawn.

    Args:
        poses: Drawings.
        keypoints: Key points of a body to draw instead.
        landmarks: Landmarks of a face to draw instead.
        fit_to: Key points of the person, whose proportions the drawn skeletons get.
        subject: The reference, a picture or a bank.
        settings: Say the film's size if the key points do not.
        found: Drawings of what was found in an ordinary film.
        person: Who of several has the key points, from the left; None: there is only one.

    Raises:
        ValueError: If key points do not say the film's size, or `fit_to` has nothing to fit.
    """
    if keypoints is not None:
        return [skeletons(keypoints, fit_to, subject, settings, person)]
    if fit_to is not None:
        raise ValueError("--fit-to needs --keypoints: drawn skeletons cannot be fitted, their key points can.")
    if landmarks is not None:
        return [read_landmarks(landmarks, width=settings.width or CANVAS, height=settings.height or CANVAS)]
    return [found] if found is not None else list(poses)


FOUND = {"aniportrait": "landmarks", "magic_animate": "densepose"}
"""What moves a system, where it is not skeletons."""


def found_for(system: str) -> str:
    """What is looked for in an ordinary film that moves a system: a name of `preprocess.conditions`.

    Args:
        system: Registry name, or that of one of its sets.
    """
    return FOUND.get(system.split(".")[0], "openpose")


def estimated(
    video: Path, condition: str, models: Path | None, person: int | None, settings: FilmSettings
) -> FrameSource:
    """Drawings of what is found in an ordinary film.

    Args:
        video: The film.
        condition: "openpose", "landmarks" or "densepose".
        models: Folder of the fetched networks; None: where they were fetched to.
        person: Which one of several, from the left; None: the largest.
        settings: Say the size and number of frames if they are not the film's.

    Raises:
        FileNotFoundError: If the film or a network is missing.
        ValueError: If nobody is found.
    """
    film = Frames(video, settings.num_frames)
    if film.has_sound:
        note(f"the sound of {video} is not copied: the film is silent.")
    finder = CONDITIONS[condition](models or default_folder())
    with followed_through(film, finder, person) as read:
        values = list(read)
    own = film.size
    rate = settings.rate or film.rate
    if condition == "densepose":
        return DensePoseFilm(people=values, size=own, rate=rate)
    size = settings.width or own[0] // 8 * 8, settings.height or own[1] // 8 * 8
    if condition == "landmarks":
        fractions = np.stack(values)[:, :, :2] / own
        return FaceMeshFilm(fractions, width=size[0], height=size[1], rate=rate)
    return SkeletonFilm([value.scaled(size[0] / own[0], size[1] / own[1]) for value in values], size, rate)


def skeletons(
    keypoints: Path, fit_to: Path | None, subject: Any, settings: FilmSettings, person: int | None = None
) -> SkeletonFilm:
    """Skeletons drawn from key points.

    Args:
        keypoints: Of each frame.
        fit_to: Of the person, whose proportions they get.
        subject: The reference, a picture or a bank.
        settings: Say the film's size if the key points do not.
        person: Who of several, from the left; None: there is only one.

    Raises:
        ValueError: If a size is missing, or `fit_to` has not one frame.
    """
    frames, canvas = read_key_points(keypoints, person)
    given = (settings.width, settings.height) if settings.width and settings.height else None
    size = given or canvas
    if size is None:
        raise ValueError(f"{keypoints} does not say how large its pictures are; give --size WIDTHxHEIGHT.")
    if canvas is not None:
        frames = [frame.scaled(size[0] / canvas[0], size[1] / canvas[1]) for frame in frames]
    if fit_to is not None:
        persons, own = read_key_points(fit_to)
        own = own or getattr(subject, "size", None)
        if own is None or len(persons) != 1:
            raise ValueError(
                f"{fit_to} has {len(persons)} frames; expected one, of the reference picture, with canvas_width and "
                "canvas_height if the reference is a saved bank."
            )
        frames = fit_bodies(frames, persons[0].scaled(size[0] / own[0], size[1] / own[1]))
    return SkeletonFilm(frames, size, settings.rate or DEFAULT_RATE)
