"""Face meshes as drawings, as AniPortrait was trained on them (Zejun-Yang/AniPortrait, commit 7f6593f).

114 edges between landmarks of MediaPipe's face mesh, in published order and colours, on a black canvas of 512 x 512,
then stretched: the face's outline without the forehead, eyes, brows, and eight parts of the lips, each in a colour of
its own. No estimator is part of this: landmarks are given, as arrays or as a film of them in an npz or JSON file.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from referencenet.inputs import as_numbers, read_arrays, read_json
from referencenet.media.films import frame_rate

FIELDS = ("landmarks", "rate")
"""What a file of landmarks holds; without the last, 30 frames are a second."""

REACH = 10.0  # how far outside of the picture a landmark may be, in pictures
NUM_LANDMARKS = 468
"""Of MediaPipe's face mesh; with the irises, which are not drawn, 478."""

CANVAS = 512  # pixels on a side, whatever the film's size
THICKNESS = 2

GROUPS = (
    ((10, 200, 10), (  # outline
        (176, 149), (150, 136), (356, 454), (58, 132), (152, 148), (361, 288), (251, 389), (132, 93), (389, 356),
        (400, 377), (136, 172), (377, 152), (323, 361), (172, 58), (454, 323), (365, 379), (379, 378), (148, 176),
        (93, 234), (397, 365), (149, 150), (288, 397), (234, 127), (378, 400), (127, 162), (162, 21),
    )),
    ((180, 200, 10), (  # left eye
        (374, 380), (390, 373), (249, 390), (385, 384), (373, 374), (263, 466), (387, 386), (381, 382), (384, 398),
        (466, 388), (386, 385), (388, 387), (263, 249), (380, 381), (398, 362), (382, 362),
    )),
    ((180, 220, 10), (  # left brow
        (334, 296), (276, 283), (293, 334), (295, 285), (296, 336), (282, 295), (283, 282), (300, 293),
    )),
    ((10, 200, 180), (  # right eye
        (154, 155), (33, 7), (246, 161), (159, 158), (144, 145), (173, 133), (158, 157), (163, 144), (153, 154), (7,
        163), (161, 160), (157, 173), (33, 246), (160, 159), (145, 153), (155, 133),
    )),
    ((10, 220, 180), (  # right brow
        (46, 53), (66, 107), (52, 65), (53, 52), (63, 105), (70, 63), (65, 55), (105, 66),
    )),
    ((10, 180, 20), (  # outer lower lip, right
        (61, 146), (146, 91), (91, 181), (181, 84), (84, 17),
    )),
    ((20, 10, 180), (  # outer lower lip, left
        (17, 314), (314, 405), (405, 321), (321, 375), (375, 291),
    )),
    ((100, 100, 30), (  # inner lower lip, right
        (78, 95), (95, 88), (88, 178), (178, 87), (87, 14),
    )),
    ((100, 150, 50), (  # inner lower lip, left
        (14, 317), (317, 402), (402, 318), (318, 324), (324, 308),
    )),
    ((20, 80, 100), (  # outer upper lip, right
        (61, 185), (185, 40), (40, 39), (39, 37), (37, 0),
    )),
    ((80, 100, 20), (  # outer upper lip, left
        (0, 267), (267, 269), (269, 270), (270, 409), (409, 291),
    )),
    ((120, 100, 200), (  # inner upper lip, right
        (78, 191), (191, 80), (80, 81), (81, 82), (82, 13),
    )),
    ((150, 120, 100), (  # inner upper lip, left
        (13, 312), (312, 311), (311, 310), (310, 415), (415, 308),
    )),
)  # fmt: skip
"""Colour and edges of each part, in the order in which they are drawn."""


def draw_face_mesh(landmarks: np.ndarray, width: int, height: int) -> np.ndarray:
    """Draw a face.

    Args:
        landmarks: (468 or 478, 2 or more), x and y as fractions of the picture; outside [0, 1] a landmark is absent
            and its edges are left out.
        width: In pixels.
        height: In pixels.

    Returns:
        (height, width, 3), uint8; channels in the order in which the network takes them.

    Raises:
        ValueError: If the landmarks have another shape or are not finite.
        ImportError: If OpenCV is not installed; no other drawing has the published pixels.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError("drawing face meshes needs OpenCV; install referencenet[preprocess].") from error
    points = checked_landmarks(landmarks)[:, :2]
    present = ((points >= 0) & (points <= 1)).all(axis=1)
    pixels = np.minimum(np.floor(np.where(present[:, None], points, 0) * CANVAS), CANVAS - 1).astype(int).tolist()
    canvas = np.zeros((CANVAS, CANVAS, 3), dtype=np.uint8)
    for colour, edges in GROUPS:
        for start, end in edges:
            if present[start] and present[end]:
                cv2.line(canvas, pixels[start], pixels[end], colour, THICKNESS, cv2.LINE_8)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_LINEAR)


def checked_landmarks(landmarks: Any, frames: bool = False) -> np.ndarray:
    """Landmarks as float64, (points, coordinates) or, with `frames`, (frames, points, coordinates).

    Args:
        landmarks: Of one face, or of a film.
        frames: Whether they are a film's.

    Raises:
        ValueError: If their number or shape does not fit, or one is not finite.
    """
    found = np.asarray(landmarks, dtype=np.float64)
    named = "(frames, 468 or 478, 2 or 3)" if frames else "(468 or 478, 2 or 3)"
    fits = found.ndim == 2 + frames and found.shape[-2] in (NUM_LANDMARKS, 478) and found.shape[-1] in (2, 3)
    if not fits or not found.shape[0]:
        raise ValueError(f"the landmarks have shape {found.shape}; expected {named}: points of MediaPipe's face mesh.")
    if not np.isfinite(found).all():
        raise ValueError("a landmark is NaN or infinite; leave out frames without a face before they are drawn.")
    return found


class FaceMeshFilm:
    """Landmarks of a film as drawings: what AniPortrait takes as `poses`.

    Args:
        landmarks: (frames, 468 or 478, 2 or 3), as fractions of the picture.
        width: Of the drawings, in pixels.
        height: Likewise.
        rate: Frames per second.
    """

    def __init__(
        self, landmarks: np.ndarray, *, width: int = CANVAS, height: int = CANVAS, rate: Fraction = Fraction(30)
    ) -> None:
        self.landmarks = checked_landmarks(landmarks, frames=True)
        self.width, self.height, self.rate = width, height, Fraction(rate)

    @property
    def num_frames(self) -> int:
        """Of the film."""
        return len(self.landmarks)

    def __len__(self) -> int:
        return self.num_frames

    def __iter__(self) -> Iterator[Image.Image]:
        return (Image.fromarray(draw_face_mesh(face, self.width, self.height)) for face in self.landmarks)


def read_landmarks(path: str | Path, *, width: int = CANVAS, height: int = CANVAS) -> FaceMeshFilm:
    """Read a film of landmarks.

    Args:
        path: An `.npy`, an `.npz` with `landmarks` and perhaps `rate`, or a JSON file with the same or with the list of
            frames alone.
        width: Of the drawings, in pixels.
        height: Likewise.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind, or holds no landmarks.
    """
    path = Path(path)
    expected = "a film of landmarks: npy, npz or JSON with `landmarks` (frames, 468, 2)"
    if path.suffix == ".json":
        found: Any = read_json(path, expected)
    else:
        found = read_arrays(path, expected, FIELDS)
    named: dict[str, Any] = found if isinstance(found, dict) else {"landmarks": found}
    named = {name or "landmarks": value for name, value in named.items()}  # of an .npy file
    if "landmarks" not in named:
        raise ValueError(f"{path} is not a film of landmarks: it has no `landmarks`; expected {expected}.")
    try:
        landmarks = checked_landmarks(as_numbers(named["landmarks"], "`landmarks`"), frames=True)
        rate = frame_rate(float(as_numbers(named.get("rate", 30), "`rate`")))
        return FaceMeshFilm(within_reach(landmarks, "they"), width=width, height=height, rate=rate)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a film of landmarks ({error}); expected {expected}.") from error


def only_face(frames: np.ndarray, path: str | Path) -> np.ndarray:
    """The face in a portrait's file: that of its only frame.

    Args:
        frames: (frames, ...) as the file has them: landmarks, or what else is of a face.
        path: The file.

    Raises:
        ValueError: If there are several frames.
    """
    if len(frames) != 1:
        raise ValueError(f"{path} has the faces of {len(frames)} frames; expected that of the portrait alone.")
    return frames[0]


def within_reach(landmarks: np.ndarray, name: str) -> np.ndarray:
    """Landmarks that are fractions of a picture, of a face that may be partly outside of it.

    Args:
        landmarks: (..., points, 2 or 3).
        name: What they are called in an error.

    Raises:
        ValueError: If x or y is far outside.
    """
    farthest = float(np.abs(landmarks[..., :2]).max())
    if farthest > REACH:
        raise ValueError(
            f"{name} reach to {farthest:.6g}; expected x and y as fractions of the picture, 0 to 1: divide by its "
            "width and height."
        )
    return landmarks
