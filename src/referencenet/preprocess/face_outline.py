"""Faces and lips as masks and boxes, from the landmarks of MediaPipe's face mesh."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from referencenet.preprocess.face_mesh import checked_landmarks
from referencenet.preprocess.faces import Box

OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""The face's edge, from the forehead clockwise in the picture."""

LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
"""The outer edge of the lips, from the corner of the mouth on the picture's left."""


def outline_mask(landmarks: np.ndarray, edge: tuple[int, ...], size: tuple[int, int]) -> Image.Image:
    """What lies inside an edge.

    Args:
        landmarks: (468 or 478, 2 or 3) in pixels.
        edge: `OVAL` or `LIPS`.
        size: Width and height of the mask.

    Returns:
        Mode L, 0 or 255.
    """
    mask = Image.new("L", size)
    corners = checked_landmarks(landmarks)[list(edge), :2]
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners], fill=255)
    return mask


def face_bounds(landmarks: np.ndarray, size: tuple[int, int], edge: tuple[int, ...] = OVAL) -> Box:
    """Left, top, right, bottom of a face or its lips, cut off at the picture's border.

    Args:
        landmarks: (468 or 478, 2 or 3) in pixels.
        size: Width and height of the picture.
        edge: `OVAL` or `LIPS`.
    """
    corners = checked_landmarks(landmarks)[list(edge), :2].clip(0, size)
    left, top, right, bottom = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).tolist()
    return left, top, right, bottom
