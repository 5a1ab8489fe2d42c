"""When a face should not be trusted: it is cut off by the picture's border, turned aside, in profile or tiny.

One set of thresholds for films and portraits, by the head's own matrix; where that is not known it is fitted to the
landmarks.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from referencenet.preprocess.face_mesh import checked_landmarks
from referencenet.preprocess.face_outline import OVAL
from referencenet.preprocess.metric_face import APPROXIMATE, flat_turn, metric_face

CUT = 0.1  # share of the outline outside of the picture
ASIDE, PROFILE = 45.0, 65.0  # degrees; landmarks of the far half are guesses from here on, and worthless
TINY = 32  # pixels of the longer side

CUT_OFF = tuple(f"cut off by the {border} border" for border in ("left", "upper", "right", "lower"))
TURNED, IN_PROFILE, TOO_SMALL = "turned aside", "in profile", "very small"

INSTEAD = dict.fromkeys(CUT_OFF, "give a picture with the whole face and some room around it") | {
    IN_PROFILE: "its far half is not seen; give a picture that looks at the camera"
}
"""Of what can be refused: what to give."""


def face_turn(matrix: np.ndarray) -> float:
    """How far a head looks aside, in degrees from 0, by its matrix (4, 4) or (3, 3)."""
    ahead = matrix[:3, 2] / np.linalg.norm(matrix[:3, 2])
    return float(np.degrees(np.arctan2(abs(ahead[0]), ahead[2])))


def face_doubt(landmarks: np.ndarray, size: tuple[int, int], matrix: np.ndarray | None = None) -> str | None:
    """Why a face's landmarks should not be trusted, in words that follow "the face is"; None: they should.

    Args:
        landmarks: (468 or 478, 2 or 3) in pixels.
        size: Width and height of the picture.
        matrix: Of the head, (4, 4); None: it is fitted, approximately.
    """
    points = checked_landmarks(landmarks)
    edge = points[list(OVAL), :2]
    if np.ptp(edge, axis=0).max() < TINY:
        return TOO_SMALL
    if matrix is None:
        has_depth = points.shape[1] == 3
        matrix = metric_face(points, size, APPROXIMATE)[1] if has_depth else flat_turn(points, APPROXIMATE)
    turn = face_turn(matrix)
    if turn >= ASIDE:
        return IN_PROFILE if turn >= PROFILE else TURNED
    outside = np.concatenate([edge < 0, edge > size], axis=1)  # beyond left, upper, right, lower
    return CUT_OFF[int(outside.sum(axis=0).argmax())] if outside.any(axis=1).mean() > CUT else None


def check_face(
    landmarks: np.ndarray, size: tuple[int, int], matrix: np.ndarray | None = None, *,
    refused: Collection[str] = (IN_PROFILE, *CUT_OFF),
) -> str | None:  # fmt: skip
    """Refuse a portrait's face of which too little is seen.

    Args:
        landmarks: (468 or 478, 2 or 3) in pixels.
        size: Width and height of the picture.
        matrix: Of the head, (4, 4); None: it is fitted, approximately.
        refused: For which doubts.

    Returns:
        Of another doubt a sentence; None: there is none.

    Raises:
        ValueError: If the face is refused, or smaller than a pixel; says what to give.
    """
    sides = np.ptp(checked_landmarks(landmarks)[list(OVAL), :2], axis=0)
    if sides.min() < 1:
        raise ValueError(
            f"the face is {sides[0]:.2f} x {sides[1]:.2f} pixels large; give landmarks in pixels of the portrait, or "
            "in a file as fractions of it."
        )
    doubt = face_doubt(landmarks, size, matrix)
    if doubt is not None and doubt in refused:
        raise ValueError(f"the face is {doubt}: {INSTEAD[doubt]}.")
    return None if doubt is None else f"the face is {doubt}; what is made of it may be wrong there."
