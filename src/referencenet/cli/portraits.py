"""What `refnet talk` reads of a portrait: the picture, where its face is, and the face's embedding."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from referencenet.cli.console import note
from referencenet.inputs import read_arrays, read_json
from referencenet.media.fitting import Fit, fitted, fitting_told
from referencenet.media.images import read_image, read_layers
from referencenet.preprocess.face_doubts import check_face
from referencenet.preprocess.face_geometry import projected
from referencenet.preprocess.face_mesh import only_face, read_landmarks
from referencenet.preprocess.face_outline import OVAL
from referencenet.preprocess.face_track import read_track
from referencenet.preprocess.mediapipe import FaceMesh
from referencenet.preprocess.model_files import default_folder
from referencenet.preprocess.portrait import Portrait, find_face

SMALL = 0.35
"""Share of the picture's width below which a face is small; Hallo asks for 0.5 to 0.7."""

WHERE = "It finds the face; or say where that is with --face NPZ|JSON."


def read_portrait(
    reference: str, face: Path | None, embedding: Path | None, models: Path | None, person: int | None, fit: Fit | None
) -> Portrait:
    """A portrait that can speak; what is done to it, and what is doubtful of its face, is said.

    Args:
        reference: The picture.
        face: Landmarks or a face track of it; None: the face is looked for.
        embedding: 512 numbers of the face, an .npy file, or glintr100.onnx, which makes them; None: there are none.
        models: Folder of the estimators; None: where they were fetched to.
        person: Which of several faces, from the left; None: the largest.
        fit: How the whole picture becomes a square; None: without `face` a square is cut around the face.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it shows no face of which enough is seen, `face` is of no square, or a file holds something else.
    """
    picture = read_image(reference)
    alpha = read_layers(reference)[1]
    if alpha is not None and np.asarray(alpha).min() < 255:
        note("the portrait's transparent parts become white.")
    if face is not None and person is not None:
        raise ValueError("--face says where the face is, and --person which one to look for; give one of them.")
    if embedding is not None and not embedding.exists():
        raise FileNotFoundError(
            f"there is no --face-embedding {embedding}; give an .npy file of 512 numbers, or glintr100.onnx."
        )
    if embedding is not None and embedding.suffix.lower() not in (".npy", ".onnx"):
        raise ValueError(f"--face-embedding {embedding.name} is no .npy or .onnx file; give 512 numbers or glintr100.")
    if face is not None:
        portrait = given_portrait(picture, face, fit)
    else:
        portrait = found_portrait(picture, face_finder(models, WHERE), person, fit)
    portrait = replace(portrait, face=embedding)
    return replace(portrait, face=portrait.embedding())  # whatever is wrong with it is told now


def given_portrait(picture: Image.Image, face: Path, fit: Fit | None) -> Portrait:
    """A portrait whose face was found before.

    Args:
        picture: The portrait.
        face: Landmarks or a face track of it.
        fit: As typed.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If the picture is not square, too little is seen of the face, or the file holds something else.
    """
    if picture.width != picture.height:
        if fit is not None:
            raise ValueError(
                "--face is of the picture as it is, which --fit changes; give a square picture, or no --face."
            )
        raise ValueError(
            f"the portrait is {picture.width} x {picture.height} pixels, and --face is of all of it; crop it to a "
            "square around the face and find the face again, or leave --face out: a square is cut then."
        )
    return whole_portrait(picture, *given_face(face, picture.size))


def found_portrait(picture: Image.Image, finder: FaceMesh, person: int | None, fit: Fit | None) -> Portrait:
    """A portrait whose face is looked for.

    Args:
        picture: The portrait.
        finder: Finds faces.
        person: Which one of several, from the left; None: the largest.
        fit: How the whole picture becomes a square; None: a square is cut around the face.

    Raises:
        ValueError: If there is no such face, or too little is seen of it.
    """
    if fit is None:
        portrait = Portrait.found(picture, finder, person=person, told=note)
        side = read_image(portrait.picture).width
        if picture.size != (side, side):
            note(
                f"the portrait is {picture.width} x {picture.height} pixels; a square of {side} is cut around the face."
            )
        return portrait
    if picture.width != picture.height:
        side = min(picture.size) if fit == "crop" else max(picture.size)
        note(f"{fitting_told('the portrait', picture.size, (side, side), fit, '')}")
        picture = fitted(picture, (side, side), fit)
    return whole_portrait(picture, find_face(picture, finder, person=person, told=note))


def whole_portrait(picture: Image.Image, landmarks: np.ndarray, matrix: np.ndarray | None = None) -> Portrait:
    """A square portrait as it is; a doubtful or small face is said.

    Args:
        picture: The portrait.
        landmarks: (468 or 478, 2 or 3) in pixels.
        matrix: Of the head, (4, 4); None: it is fitted.

    Raises:
        ValueError: If too little is seen of the face.
    """
    doubt = check_face(landmarks, picture.size, matrix)
    if doubt is not None:
        note(doubt)
    share = float(np.ptp(landmarks[list(OVAL), 0])) / picture.width
    if share < SMALL:
        note(f"the face is {share:.0%} as wide as the picture; crop it until it is half to two thirds.")
    return Portrait(picture=picture, landmarks=landmarks[:, :2])


def face_finder(models: Path | None, otherwise: str) -> FaceMesh:
    """Finds faces by the fetched networks.

    Args:
        models: Folder of them; None: where they were fetched to.
        otherwise: What they are for and what can be done without them, for the error.

    Raises:
        FileNotFoundError: If they are not there.
    """
    try:
        return FaceMesh(models or default_folder())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} {otherwise}") from error


def given_face(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """The face of a portrait from a file.

    Args:
        path: A face track of one frame, or landmarks as `refnet preprocess --to landmarks` writes them.
        size: Width and height of the portrait.

    Returns:
        Landmarks (468 or 478, 2 or 3) in pixels, and the head's matrix (4, 4) if the file has it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither, or has several frames.
    """
    how = "`refnet preprocess PORTRAIT --to landmarks --out face.npz` makes one"
    if path.suffix not in (".npz", ".npy", ".json"):
        raise ValueError(f"--face {path.name} is no .npz, .npy or .json file of landmarks or a face track; {how}.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no --face {path}; {how}.")
    if _is_track(path):
        track = read_track(path)
        places = projected(track.vertices, track.matrices, track.width, track.height) / (track.width, track.height)
        return only_face(places, path) * size, track.matrices[0]
    fractions = only_face(read_landmarks(path).landmarks, path)
    return fractions * (*size, size[0])[: fractions.shape[1]], None


def _is_track(path: Path) -> bool:
    """Whether a file holds a face track, not landmarks alone; what cannot be read is told by who reads it."""
    matrices = ("matrices", "trans_mat")  # few numbers, which landmarks have not
    try:
        found = read_json(path, "a face") if path.suffix == ".json" else read_arrays(path, "a face", matrices)
        return isinstance(found, dict) and bool({*matrices} & found.keys())
    except (ValueError, OSError):
        return False
