"""A face in space for tests: where our basis has it, with an outline and lips around."""

from __future__ import annotations

import numpy as np

from referencenet.preprocess.face_outline import LIPS, OVAL
from referencenet.preprocess.metric_face import APPROXIMATE

FIELD = np.tan(np.radians(31.5))


def head() -> np.ndarray:
    """A mesh (468, 3) in centimetres that looks at the viewer: x to the picture's right, y up, z to the viewer."""
    mesh = np.random.default_rng(2).uniform(-2, 2, size=(468, 3))
    around = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    mesh[list(OVAL)] = np.stack([7 * np.sin(around), 9 * np.cos(around), 0 * around], axis=1)
    lips = np.linspace(0, 2 * np.pi, len(LIPS), endpoint=False)
    mesh[list(LIPS)] = np.stack([2.5 * np.sin(lips), np.cos(lips) - 4, 0 * lips + 5], axis=1)
    mesh[APPROXIMATE.landmarks] = APPROXIMATE.places
    return mesh


def aside(mesh: np.ndarray, degrees: float) -> np.ndarray:
    """A mesh turned about its vertical axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return mesh @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T


def weakly_seen(mesh: np.ndarray, pose: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Landmarks (468, 3) in pixels as a weak-perspective camera sees a head: one scale for x, y and depth.

    An independent computation: a ray through each pixel at the mean depth of the head, nothing of the library's.
    """
    x, y, z = np.radians(pose[:3])
    turns = (
        np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]),
        np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]),
        np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]),
    )
    placed = mesh @ (turns[2] @ turns[1] @ turns[0]).T + pose[3:]
    scale = size[1] / 2 / FIELD / -placed[:, 2].mean()  # pixels per centimetre
    return np.column_stack(
        [size[0] / 2 + placed[:, 0] * scale, size[1] / 2 - placed[:, 1] * scale, -placed[:, 2] * scale]
    )
