"""Head poses and projections of face meshes, as AniPortrait computes them (Zejun-Yang/AniPortrait, commit 7f6593f).

A mesh is metric, without head pose; a pose is three Euler angles in degrees and a translation. What looks like a slip
in the published projection (its depth term, so that points are divided by -1.0001 z) is kept: the networks' drawings
have it. Everything is float64 but the perspective table, which is built in float32.
"""

from __future__ import annotations

import math

import numpy as np

NEAR, FAR, FIELD_OF_VIEW = 1.0, 10000.0, 63.0  # the last one vertical, in degrees


def pose_matrices(poses: np.ndarray) -> np.ndarray:
    """Poses (..., 6), extrinsic x, y, z angles in degrees and a translation, as matrices (..., 4, 4)."""
    poses = np.asarray(poses, dtype=np.float64)
    if poses.shape[-1:] != (6,):
        raise ValueError(f"poses have shape {poses.shape}; expected (..., 6): three angles in degrees, a translation.")
    sines, cosines = np.sin(np.radians(poses[..., :3])), np.cos(np.radians(poses[..., :3]))
    rotation = np.broadcast_to(np.eye(3), (*poses.shape[:-1], 3, 3))
    for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        turn = np.zeros_like(rotation)
        turn[..., axis, axis] = 1
        turn[..., i, i] = turn[..., j, j] = cosines[..., axis]
        turn[..., i, j], turn[..., j, i] = -sines[..., axis], sines[..., axis]
        rotation = turn @ rotation
    matrices = np.zeros((*poses.shape[:-1], 4, 4))
    matrices[..., :3, :3], matrices[..., :3, 3], matrices[..., 3, 3] = rotation, poses[..., 3:], 1
    return matrices


def poses_of(matrices: np.ndarray) -> np.ndarray:
    """The inverse of `pose_matrices`: matrices (..., 4, 4) to poses (..., 6); the second angle is within 90 degrees."""
    m = np.asarray(matrices, dtype=np.float64)
    angles = (
        np.arctan2(m[..., 2, 1], m[..., 2, 2]),
        np.arctan2(-m[..., 2, 0], np.hypot(m[..., 0, 0], m[..., 1, 0])),
        np.arctan2(m[..., 1, 0], m[..., 0, 0]),
    )
    return np.concatenate([np.degrees(np.stack(angles, axis=-1)), m[..., :3, 3]], axis=-1)


def perspective(width: int, height: int) -> np.ndarray:
    """The published projection of a picture of so many pixels, (4, 4), for rows from the left; float32."""
    focal = 1 / math.tan(math.radians(FIELD_OF_VIEW / 2))
    table = np.zeros((4, 4), dtype=np.float32)
    table[0, 0] = focal * height / width
    table[1, 1] = -focal
    table[2, 2] = (NEAR + FAR) / (NEAR - FAR)
    table[2, 3] = NEAR * FAR / (NEAR - FAR)
    table[3, 2] = -1
    return table


def projected(points: np.ndarray, matrices: np.ndarray, width: int, height: int) -> np.ndarray:
    """Project meshes.

    Args:
        points: Metric vertices (frames, points, 3).
        matrices: Canonical to camera, (frames, 4, 4).
        width: Of the picture in pixels.
        height: Likewise.

    Returns:
        (frames, points, 2) in pixels.
    """
    points = np.asarray(points, dtype=np.float64)
    rows = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1)
    seen = rows @ np.swapaxes(matrices, -1, -2) @ perspective(width, height)
    return (seen[..., :2] / seen[..., 3:] + 1) / 2 * np.array([width, height])


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Moving average over frames (frames, ...), centred, with fewer frames at both ends.

    Args:
        values: Such as poses, whose angles are averaged as numbers.
        window: Frames, odd.

    Raises:
        ValueError: If the window is not odd.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"the window has {window} frames; expected an odd number.")
    half = window // 2
    return np.stack([values[max(0, i - half) : i + half + 1].mean(axis=0) for i in range(len(values))])
