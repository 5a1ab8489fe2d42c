"""Faces in space that commands take: read from a file, or found in a film or a portrait."""

from pathlib import Path

import numpy as np
from PIL import Image

from referencenet.cli.console import note
from referencenet.cli.preprocess import Frames, followed_through
from referencenet.links.bank import ReferenceBank
from referencenet.media.images import fit_size
from referencenet.pipelines.film_files import FilmSettings
from referencenet.preprocess.conditions import FaceTracks
from referencenet.preprocess.face_doubts import IN_PROFILE, check_face
from referencenet.preprocess.face_landmarker import FaceReading
from referencenet.preprocess.face_mesh import CANVAS, FaceMeshFilm, only_face
from referencenet.preprocess.face_track import SMALL_FACE, FaceTrack, crop_portrait, read_track, reenacted
from referencenet.preprocess.model_files import default_folder
from referencenet.preprocess.portrait import find_face
from referencenet.preprocess.talking_face import TRAINED_RATE, head_poses_of, read_head_poses

TRACKS = (".npz", ".json")


def reenactment(
    driving: Path, face: Path | None, subject: Image.Image | ReferenceBank, models: Path | None, person: int | None,
    settings: FilmSettings,
) -> tuple[Image.Image | ReferenceBank, FaceMeshFilm]:  # fmt: skip
    """The portrait, and drawings of its face, moved as the one in a film.

    Args:
        driving: The film, or its face track.
        face: The portrait's face track; None: it is found in the portrait.
        subject: The portrait, or its bank.
        models: Folder of the networks; None: where they were fetched to.
        person: Which one of several in the film, from the left; None: the largest.
        settings: Say the size and number of frames; without a size the portrait's, scaled to the area of 512 x 512.

    Raises:
        FileNotFoundError: If a film, a track or a network is missing.
        ValueError: If no face is found, or a bank was given without the portrait's track.
    """
    subject, portrait = with_track(face, subject, models)
    track = film_track(driving, models, person, settings.num_frames)
    own = (portrait.width, portrait.height)
    width, height = fit_size(own, target=(CANVAS, CANVAS))
    return subject, reenacted(track, portrait, width=settings.width or width, height=settings.height or height)


def with_track(
    face: Path | None, subject: Image.Image | ReferenceBank, models: Path | None
) -> tuple[Image.Image | ReferenceBank, FaceTrack]:
    """The portrait with its own face, of a file or found; around a small face the portrait is cut, as published.

    Args:
        face: Its face track: the portrait is left as it is; None: the face is found.
        subject: The portrait, or its bank.
        models: Folder of the networks; None: where they were fetched to.

    Raises:
        FileNotFoundError: If the file or a network is missing.
        ValueError: If the file is a film's, no face is found or it is in profile, or a bank has no file.
    """
    if face is not None:
        track = read_track(face)
        only_face(track.vertices, face)
        return subject, track
    if isinstance(subject, ReferenceBank):
        raise ValueError("a bank shows no face; give the portrait's with --face NPZ, of `preprocess --to face-track`.")
    finder = FaceTracks(models or default_folder())
    reading = read_face(finder, subject)
    places = reading.landmarks[:, :2] / subject.size
    share = float(np.ptp(places, axis=0).prod())
    if share < SMALL_FACE:
        note(f"the face covers {share:.0%} of the portrait, which is cut around it as published.")
        subject = crop_portrait(subject, places)
        reading = read_face(finder, subject)
    return subject, FaceTrack.of([reading], subject.size)


def read_face(finder: FaceTracks, portrait: Image.Image) -> FaceReading:
    """The face of a portrait; what is doubtful of it is said.

    Raises:
        ValueError: If there is none, or it is in profile.
    """
    reading = find_face(portrait, finder, told=note)
    doubt = check_face(reading.landmarks, portrait.size, reading.matrix, refused=(IN_PROFILE,))
    if doubt is not None:
        note(doubt)
    return reading


def film_track(film: Path, models: Path | None, person: int | None = None, num_frames: int | None = None) -> FaceTrack:
    """A film's face through its frames: read from a track, or found.

    Of a film of 45 frames a second or more only one in two is taken, or three and so on, to come near to the 30 of
    training; published for 60.

    Args:
        film: A film, or its face track (npz or JSON).
        models: Folder of the networks; None: where they were fetched to.
        person: Which one of several, from the left; None: the largest.
        num_frames: Only the first ones; None: all.

    Raises:
        FileNotFoundError: If the film or a network is missing.
        ValueError: If no face is found.
    """
    if film.suffix.lower() in TRACKS:
        return read_track(film)
    frames = Frames(film, num_frames)
    every = max(1, round(frames.rate / TRAINED_RATE))
    if every > 1:
        note(f"the film has {float(frames.rate):g} frames a second; one in {every} is taken.")
        frames = Frames(film, num_frames, every)
    with followed_through(frames, FaceTracks(models or default_folder()), person) as read:
        return FaceTrack.of(read, frames.size, frames.rate)


def film_head_poses(path: Path, models: Path | None = None) -> np.ndarray:
    """Head poses (frames, 6) as `read_head_poses` gives them, of a file or an ordinary film.

    Raises:
        FileNotFoundError: If the file or a network is missing.
        ValueError: If it holds no poses, or no face is found.
    """
    return (
        read_head_poses(path) if path.suffix.lower() in (".npy", *TRACKS) else head_poses_of(film_track(path, models))
    )
