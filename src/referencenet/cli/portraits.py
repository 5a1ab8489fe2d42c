"""What `refnet talk` reads of a portrait: the picture, where its face is, and the face's embedding."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from referencenet.cli.console import note
from referencenet.media.fitting import Fit, fitted, fitting_told
from referencenet.media.images import read_image, read_layers
from referencenet.preprocess.face_geometry import projected
from referencenet.preprocess.face_mesh import read_landmarks
from referencenet.preprocess.face_track import read_track
from referencenet.preprocess.model_files import default_folder
from referencenet.preprocess.one_face import check_face, find_landmarks
from referencenet.preprocess.portrait import Portrait


def read_portrait(
    reference: str, face: Path | None, embedding: Path | None, models: Path | None, person: int | None, fit: Fit | None
) -> Portrait:
    """A portrait that can speak.

    Args:
        reference: The picture.
        face: Landmarks or a face track of it; None: the face is looked for.
        embedding: 512 numbers of the face, an .npy file, or glintr100.onnx, which makes them; None: there are none.
        models: Folder of the estimators; None: where they were fetched to.
        person: Which of several faces, from the left; None: there is to be one.
        fit: How a picture becomes a square; None: it is one.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is no square picture of one whole face, or a file holds something else.
    """
    picture = read_image(reference)
    alpha = read_layers(reference)[1]
    if alpha is not None and np.asarray(alpha).min() < 255:
        note("the portrait's transparent parts become white.")
    if picture.width != picture.height and fit is not None:
        if face is not None:
            raise ValueError(
                "--face is of the picture as it is, which --fit changes; give a square picture, or no --face."
            )
        side = min(picture.size) if fit == "crop" else max(picture.size)
        note(f"{fitting_told('the portrait', picture.size, (side, side), fit, '')}")
        picture = fitted(picture, (side, side), fit)
    if picture.width != picture.height:
        raise ValueError(
            f"the portrait {reference} is {picture.width} x {picture.height} pixels; crop it to a square around the "
            "face (--fit crop takes the middle): half to two thirds as wide as the picture."
        )
    if face is not None and person is not None:
        raise ValueError("--face says where the face is, and --person which one to look for; give one of them.")
    if embedding is not None and not embedding.exists():
        raise FileNotFoundError(
            f"there is no --face-embedding {embedding}; give an .npy file of 512 numbers, or glintr100.onnx."
        )
    if embedding is not None and embedding.suffix.lower() not in (".npy", ".onnx"):
        raise ValueError(f"--face-embedding {embedding.name} is no .npy or .onnx file; give 512 numbers or glintr100.")
    found = given_landmarks(face, picture.size) if face is not None else looked_for(picture, models, person)
    for sentence in check_face(found, picture.size):
        note(sentence)
    portrait = Portrait(picture=picture, landmarks=found[:, :2], face=embedding)
    return replace(portrait, face=portrait.embedding())  # whatever is wrong with it is told now


def looked_for(picture: Image.Image, models: Path | None, person: int | None) -> np.ndarray:
    """Landmarks of a portrait by the fetched networks, (468, 3) in pixels.

    Raises:
        FileNotFoundError: If they are not there.
        ValueError: If there is not the face that is meant.
    """
    try:
        return find_landmarks(picture, models or default_folder(), person)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} It finds the face; or say where that is with --face NPZ|JSON.") from error


def given_landmarks(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Landmarks of a portrait from a file.

    Args:
        path: A face track of one frame, or landmarks as `refnet preprocess --to landmarks` writes them.
        size: Width and height of the portrait.

    Returns:
        (468 or 478, 2), x and y in pixels.

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
        frames = projected(track.vertices, track.matrices, track.width, track.height) / (track.width, track.height)
    else:
        frames = read_landmarks(path).landmarks[:, :, :2]
    if len(frames) != 1:
        raise ValueError(f"{path} has the faces of {len(frames)} frames; expected that of the portrait alone.")
    return frames[0] * size


def _is_track(path: Path) -> bool:
    """Whether a file holds a face track, not landmarks alone; what cannot be read is told by who reads it."""
    try:
        if path.suffix == ".json":
            found = json.loads(path.read_text("utf-8"))
        else:
            with np.load(path, allow_pickle=False) as opened:
                found = dict.fromkeys(opened) if hasattr(opened, "keys") else {}
        return isinstance(found, dict) and "vertices" in found
    except (ValueError, OSError, EOFError, TypeError, AttributeError):
        return False
