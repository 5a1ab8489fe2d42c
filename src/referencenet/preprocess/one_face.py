"""The one face of a portrait that is to speak: found by an estimator, and looked at before anything is drawn.

Hallo and EMO were made for a square picture of one whole face that looks at the camera, turned by less than 30 degrees.
Landmarks are MediaPipe's, in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from referencenet.media.images import Picture, read_image
from referencenet.preprocess.face_mesh import checked_landmarks
from referencenet.preprocess.face_outline import OVAL
from referencenet.preprocess.following import chosen
from referencenet.preprocess.mediapipe import FaceMesh

NOSE, RIGHT_EDGE, LEFT_EDGE = 1, 234, 454
"""The tip of the nose, and where the face ends before the ears, among the 468."""

CUT = 0.1
"""Share of the face's width or height that may lie outside of the picture."""

TURNED = 0.87
"""Where the nose stands between the face's edges when the head is turned by 30 degrees; at 1, at 38 degrees, it leaves
the face. From MediaPipe's canonical face: the nose is 9.9 cm before the edges, which are 15.3 cm apart."""

SMALL = 0.35
"""Share of the picture's width below which a face is small; Hallo asks for 0.5 to 0.7."""


def find_landmarks(picture: Picture, models: str | Path, person: int | None = None) -> np.ndarray:
    """Landmarks of a portrait's only face, by MediaPipe's networks.

    Args:
        picture: The portrait.
        models: Folder of the fetched networks.
        person: Which of several faces, from the left, from 1; None: there is to be one.

    Returns:
        (468, 3), x and y in pixels, depth in pixels.

    Raises:
        FileNotFoundError: If a network is missing; says how to get it.
        ValueError: If the picture shows no face, several, or fewer than the one that is asked for.
    """
    image, finder = read_image(picture), FaceMesh(models)
    size = f"the portrait of {image.width} x {image.height} pixels"
    regions = finder.regions(image)
    if not regions:
        raise ValueError(
            f"no face was found in {size}; give one that shows a whole face, half to two thirds as wide as the picture."
        )
    if person is None and len(regions) > 1:
        raise ValueError(
            f"{len(regions)} faces were found in {size}; crop it to the one that speaks, or name it: --person 1 is the "
            "first from the left."
        )
    region = chosen(regions, person, None)
    if region is None:
        raise ValueError(
            f"face {person} from the left was asked for, but {size} shows {len(regions)}; ask for another."
        )
    found = finder.read(image, region)
    if found is None:
        raise ValueError(f"what was found in {size} is no face that can be read; give a clearer or larger one.")
    return found


def check_face(landmarks: np.ndarray, size: tuple[int, int]) -> Sequence[str]:
    """Refuse a face that cannot speak well: cut off by the picture's border, or in profile.

    Args:
        landmarks: (468 or 478, 2 or 3), x and y in pixels.
        size: Width and height of the picture.

    Returns:
        What may go wrong, a sentence each: a face that is turned by 30 degrees or more, or small.

    Raises:
        ValueError: If it is one of those, or smaller than a pixel; says which.
    """
    points = checked_landmarks(landmarks)[:, :2]
    edge = points[list(OVAL)]
    low, high = edge.min(axis=0), edge.max(axis=0)
    sides = high - low
    if sides.min() < 1:
        raise ValueError(
            f"the face is {sides[0]:.2f} x {sides[1]:.2f} pixels large; give landmarks in pixels of the portrait, or "
            "in a file as fractions of it."
        )
    over = np.concatenate([-low, high - np.array(size)]) / np.concatenate([sides, sides])
    if over.max() > CUT:
        border = ("left", "upper", "right", "lower")[int(over.argmax())]
        raise ValueError(
            f"the face is cut off by the picture's {border} border: {over.max():.0%} of it lie outside; give a picture "
            "with the whole face and some room around it."
        )
    place = nose_place(points)
    if abs(place - 0.5) >= 0.5:
        raise ValueError(
            "the face is in profile: its nose lies beyond its edge, so the head is turned by 38 degrees or more; give "
            "a portrait that looks at the camera, turned by less than 30 degrees."
        )
    told: list[str] = []
    if abs(place - 0.5) > TURNED - 0.5:
        told.append("the head is turned by about 30 degrees or more; results get worse from there on.")
    if sides[0] / size[0] < SMALL:
        told.append(
            f"the face is {sides[0] / size[0]:.0%} as wide as the picture; crop it until it is half to two thirds."
        )
    return told


def nose_place(points: np.ndarray) -> float:
    """Where the tip of the nose stands between the edges of a face, (468 or 478, 2): 0.5 in the middle."""
    right, left, nose = points[RIGHT_EDGE], points[LEFT_EDGE], points[NOSE]
    across = left - right
    return float((nose - right) @ across / max(float(across @ across), 1e-9))
