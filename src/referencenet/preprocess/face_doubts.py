"""When what was read of a face should not be trusted: it is cut by the picture's border, turned aside, or tiny."""

from __future__ import annotations

import numpy as np

from referencenet.preprocess.face_mesh import checked_landmarks
from referencenet.preprocess.face_outline import OVAL
from referencenet.preprocess.metric_face import APPROXIMATE, metric_face

CUT = 0.1  # share of the outline outside of the picture
ASIDE, PROFILE = 45.0, 65.0  # degrees; landmarks of the far half are guesses from here on, and worthless
TINY = 32  # pixels of the longer side

CUT_OFF, TURNED, IN_PROFILE, TOO_SMALL = "cut off by the border", "turned aside", "in profile", "very small"


def face_turn(matrix: np.ndarray) -> float:
    """How far a head looks aside, in degrees from 0, by its matrix (4, 4)."""
    ahead = matrix[:3, 2] / np.linalg.norm(matrix[:3, 2])
    return float(np.degrees(np.arctan2(abs(ahead[0]), ahead[2])))


def face_doubt(landmarks: np.ndarray, size: tuple[int, int], matrix: np.ndarray | None = None) -> str | None:
    """Why a face's landmarks should not be trusted, in words that follow "the face is"; None: they should.

    Args:
        landmarks: (468 or 478, 3) in pixels.
        size: Width and height of the picture.
        matrix: Of the head, (4, 4); None: it is fitted, approximately.
    """
    edge = checked_landmarks(landmarks)[list(OVAL), :2]
    if np.ptp(edge, axis=0).max() < TINY:
        return TOO_SMALL
    turn = face_turn(metric_face(landmarks, size, APPROXIMATE)[1] if matrix is None else matrix)
    if turn >= ASIDE:
        return IN_PROFILE if turn >= PROFILE else TURNED
    outside = ((edge < 0) | (edge > size)).any(axis=1).mean()
    return CUT_OFF if outside > CUT else None
