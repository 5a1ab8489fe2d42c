"""The points of MediaPipe's face mesh that a drawn face has: outline, eyes, brows and lips; the others are absent.

Those are all that AniPortrait's drawings of faces use. An absent point lies outside of the picture, at -1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from referencenet.paperdoll.ball import RX, RY, Head, eye_size, jaw_curve
from referencenet.paperdoll.canvas import Point
from referencenet.paperdoll.face import brow_points, mouth_lips
from referencenet.paperdoll.figure import Figure
from referencenet.paperdoll.landmarks import five_of, is_face_seen
from referencenet.paperdoll.render import Size, picture_size, view_matrix
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.skeleton import in_figure
from referencenet.preprocess.face_geometry import perspective, pose_matrices

NUM_POINTS = 478
_OUTLINE = (
    (21, 162, 127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152),  # from the right temple to the chin
    (251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152),
)
_EYES = (  # outer corner, lower edge, inner corner, upper edge
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
_BROWS = (((55, 65, 52, 53, 46), (107, 66, 105, 63, 70)), ((285, 295, 282, 283, 276), (336, 296, 334, 293, 300)))
"""Lower and upper edge of each, from the nose outwards."""
_LIPS = (  # upper and lower edge, from the right corner to the left one
    ((61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291), (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)),
    ((78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308), (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)),
)
NUM_VERTICES = 468
"""Points of the mesh that has a third dimension: the irises are not among them."""
DEPTH = 30.0
"""Of a head before the camera, about that of a face in MediaPipe's space."""
ABSENT = -1000.0
"""Where points are that a drawn face has not: outside of every picture."""
_CORNERS = 33, 263
"""Of the eyes, outwards."""
_LIP = 0.75  # units from the mouth's edge to the lips'


def face_mesh(scene: Scene, size: Size = 64) -> np.ndarray:
    """Find the points of a scene's face.

    Args:
        scene: What is drawn.
        size: As for `render`; only the proportion of width to height matters.

    Returns:
        (478, 3) float32: x and y as fractions of the picture's width and height, and 0, since the drawing is flat;
        absent points are -1. From behind all are.
    """
    found = np.full((NUM_POINTS, 3), -1.0, dtype=np.float32)
    if not is_face_seen(scene):
        return found
    figure, (width, height) = Figure.of(scene), picture_size(size)
    matrix = view_matrix(scene, size)
    for number, (x, y) in _in_head(figure.head).items():
        px, py = (matrix[:, :2] @ in_figure(figure, (x, y)) + matrix[:, 2]) / (width, height)
        found[number] = px, py, 0
    return found


def face_track(scenes: Sequence[Scene], size: Size, rate: float) -> dict[str, Any]:
    """A talking head as a face tracker tells it: what `preprocess.face_track.read_track` reads of an npz.

    A drawn face is flat: its head lies `DEPTH` before the camera, is turned in the picture alone and moved along it.

    Args:
        scenes: One for each frame; faces are seen in all.
        size: As for `render`.
        rate: Frames per second.

    Returns:
        `vertices` (frames, 468, 3) without head pose, `matrices` (frames, 4, 4), and `width`, `height` and `rate`.
    """
    width, height = picture_size(size)
    shares = np.stack([face_mesh(scene, size)[:NUM_VERTICES, :2] for scene in scenes]).astype(np.float64)
    table = perspective(width, height).astype(np.float64)
    scale = -DEPTH * table[2, 3] / np.array([table[0, 0], table[1, 1]])  # from the picture, in [-1, 1], to the camera
    points = (2 * shares - 1) * scale
    right, left = points[:, _CORNERS[0]], points[:, _CORNERS[1]]
    middle, across = (right + left) / 2, left - right
    angles = np.arctan2(across[:, 1], across[:, 0])
    poses = np.zeros((len(points), 6))
    poses[:, 2], poses[:, 3:5], poses[:, 5] = np.degrees(angles), middle, -DEPTH
    cosines, sines = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x, y = np.moveaxis(points - middle[:, None], -1, 0)
    own = np.stack([x * cosines + y * sines, y * cosines - x * sines, np.zeros_like(x)], axis=-1)
    own[np.broadcast_to((shares < 0).any(-1)[..., None], own.shape)] = ABSENT
    told = {"vertices": own, "matrices": pose_matrices(poses)}
    return {name: value.astype(np.float32) for name, value in told.items()} | {
        "width": width, "height": height, "rate": rate,
    }  # fmt: skip


def _in_head(head: Head) -> dict[int, Point]:
    """Number to x and y in the head's units."""
    return _outline(head) | _eyes(head) | _brows(head) | _lips(head)


def _outline(head: Head) -> dict[int, Point]:
    temples = [(RX * math.cos(math.radians(a)), -RY * math.sin(math.radians(a))) for a in (24, 12)]
    edge = [*temples, *(jaw_curve(head.character.face, i / 11) for i in range(12))]
    return {
        n: (s * abs(x), y)
        for s, numbers in zip((-1, 1), _OUTLINE, strict=True)
        for n, (x, y) in zip(numbers, edge, strict=True)
    }


def _eyes(head: Head) -> dict[int, Point]:
    found: dict[int, Point] = {}
    for side, numbers in zip((-1, 1), _EYES, strict=True):
        x, y, z = head.ball.at(side * 25, 1.6)
        wide, tall = eye_size(z, head.expression.eyes)
        if z >= 0.12:
            angles = [2 * math.pi * i / len(numbers) for i in range(len(numbers))]
            points = [(x + side * wide * math.cos(a), y + tall * math.sin(a)) for a in angles]
            found |= dict(zip(numbers, points, strict=True))
    return found


def _brows(head: Head) -> dict[int, Point]:
    found: dict[int, Point] = {}
    half = 0.6 * head.character.brow
    for side, edges in zip((-1, 1), _BROWS, strict=True):
        brow = five_of(brow_points(head, side))
        if all(z >= 0.1 for _, _, z in brow):
            for shift, numbers in zip((half, -half), edges, strict=True):
                found |= {number: (x, y + shift) for number, (x, y, _) in zip(numbers, brow, strict=True)}
    return found


def _lips(head: Head) -> dict[int, Point]:
    found: dict[int, Point] = {}
    upper, lower = mouth_lips(head, 11)
    if head.expression.mouth < 0.06:
        lower = upper
    for reach, edges in zip((_LIP, 0.0), _LIPS, strict=True):
        for shift, line, numbers in zip((-reach, reach), (upper, lower), edges, strict=True):
            ends = numbers[0], numbers[-1]  # the corners belong to both edges
            found |= {n: (x, y + shift * (n not in ends)) for n, (x, y) in zip(numbers, line, strict=True)}
    return found
