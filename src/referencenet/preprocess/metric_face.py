"""A face in space from its landmarks in a picture: a mesh in centimetres without the head's pose, and the pose.

What MediaPipe's face geometry module computes (google-ai-edge/mediapipe, geometry_pipeline.cc, commit 1a5164f), for a
camera with a vertical field of view of 63 degrees: landmarks are weak-perspective, so the face's distance follows from
the scale at which a few points that move with the head alone fit those of a canonical face, found in two rounds.
Space is right-handed: x to the picture's right, y up, z towards the viewer. Letters: n landmarks, k points of a basis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from referencenet.preprocess.face_geometry import FIELD_OF_VIEW, NEAR
from referencenet.preprocess.face_mesh import NUM_LANDMARKS, checked_landmarks
from referencenet.preprocess.procrustes import similarity

TOO_COMPACT = 1e-3  # share of the picture: landmarks closer together than this have no pose


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceBasis:
    """Points of a face that move with the head and not with its expression.

    Attributes:
        landmarks: (k,) their numbers among MediaPipe's 468.
        places: (k, 3) in centimetres, on a canonical face that looks at the viewer.
        weights: (k,) how much each of them counts.
    """

    landmarks: np.ndarray
    places: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        shapes = self.landmarks.shape, self.places.shape, self.weights.shape
        count = len(self.landmarks)
        if count < 3 or shapes != ((count,), (count, 3), (count,)):
            raise ValueError(f"a basis has shapes {shapes}; expected (k,), (k, 3) and (k,), of 3 points at least.")
        if self.landmarks.min() < 0 or self.landmarks.max() >= NUM_LANDMARKS:
            raise ValueError(f"a basis names landmarks beyond 0 to {NUM_LANDMARKS - 1}.")


MIDDLE = ((10, 8.36, 4.77), (168, 3.20, 5.26), (6, 2.40, 5.72), (197, 1.64, 6.26), (4, -0.73, 7.70))
"""Landmarks in the middle of a face, and their y and z."""

SIDES = (
    (33, 263, 4.85, 2.69, 2.88), (133, 362, 1.90, 2.57, 3.50), (129, 358, 2.30, -1.12, 4.54),
    (127, 356, 7.47, 1.97, -2.25), (54, 284, 6.43, 6.27, 1.42), (117, 346, 5.55, 0.97, 2.83),
    (198, 420, 1.52, 0.09, 5.61),
)  # fmt: skip
"""Pairs on the picture's left and right of a face, and x, y, z of the second."""

APPROXIMATE = FaceBasis(
    landmarks=np.array([row[0] for row in MIDDLE] + [number for row in SIDES for number in row[:2]]),
    places=np.array(
        [(0, *row[1:]) for row in MIDDLE] + [(side * row[2], *row[3:]) for row in SIDES for side in (-1, 1)]
    ),
    weights=np.ones(len(MIDDLE) + 2 * len(SIDES)),
)
"""Ours, where MediaPipe's canonical face is not at hand: the mean of ten faces (`benchmarks/face_basis.py`).

Turned and scaled so that on nine of them poses are MediaPipe's on average. Of one face they then differ by 2.0, 0.9
and 1.7 degrees about x, y and z (medians; at most 7.7), its distance by at most 6 %, its mesh by 0.5 cm (mean).
"""


def metric_face(landmarks: np.ndarray, size: tuple[int, int], basis: FaceBasis) -> tuple[np.ndarray, np.ndarray]:
    """A face's mesh and head pose.

    Args:
        landmarks: (468 or 478, 3) in pixels; the third is depth, growing away from the viewer, in pixels too.
        size: Width and height of the picture in pixels.
        basis: Points of the canonical face.

    Returns:
        Vertices without head pose, (468, 3), and the matrix from there to the camera, (4, 4), both in centimetres.
        `projected` brings them back to the landmarks' x and y.

    Raises:
        ValueError: If the landmarks lie so close together that they have no pose, or have no depth.
    """
    points = checked_landmarks(landmarks)[:NUM_LANDMARKS]
    if points.shape[1] != 3:
        raise ValueError(f"the landmarks have shape {points.shape}; expected a depth as well: (468 or 478, 3).")
    extent = np.ptp(points[:, :2], axis=0) / size
    if extent.max() < TOO_COMPACT:
        raise ValueError(f"the landmarks cover {extent.max():.2%} of the picture; expected a face that can be seen.")
    middle = np.array([size[0] / 2, size[1] / 2, points[:, 2].mean()])
    near = 2 * NEAR * math.tan(math.radians(FIELD_OF_VIEW / 2)) / size[1]  # centimetres per pixel, 1 cm from the eye
    flat = (points - middle) * near * (1, -1, 1)
    flat[:, 2] += NEAR
    scale = _scale(flat * (1, 1, -1), basis)
    scale *= _scale(_unprojected(flat, scale), basis)
    found = _unprojected(flat, scale)
    matrix = similarity(basis.places, found[basis.landmarks], basis.weights)
    there = np.linalg.inv(matrix)
    return found @ there[:3, :3].T + there[:3, 3], matrix


def flat_turn(landmarks: np.ndarray, basis: FaceBasis) -> np.ndarray:
    """How a head is turned by landmarks without depth: the weak-perspective camera that fits them best.

    Args:
        landmarks: (468 or 478, 2 or 3) in pixels; a third coordinate is not read.
        basis: Points of the canonical face.

    Returns:
        The turn from that face to the camera, (3, 3), a rotation as far as the landmarks are of such a face.
    """
    points = checked_landmarks(landmarks)[basis.landmarks, :2] * (1, -1)
    weights = np.sqrt(basis.weights)[:, None]
    known = np.column_stack([basis.places, np.ones(len(points))])
    across, up = np.linalg.lstsq(known * weights, points * weights, rcond=None)[0][:3].T
    scale = np.linalg.norm([across, up]) / math.sqrt(2)  # pixels per centimetre
    return np.stack([across, up, np.cross(across, up) / scale]) / scale


def _unprojected(flat: np.ndarray, scale: float) -> np.ndarray:
    """Points on the plane 1 cm from the eye, with depth, at their true distance; z towards the viewer."""
    depth = flat[:, 2:] / scale
    return np.concatenate([flat[:, :2] * depth / NEAR, -depth], axis=1)


def _scale(points: np.ndarray, basis: FaceBasis) -> float:
    """How many times as large as the canonical face these points are."""
    return float(np.linalg.norm(similarity(basis.places, points[basis.landmarks], basis.weights)[:3, 0]))
