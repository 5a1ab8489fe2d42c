"""What tests of talking portraits share: a face from any side, and short clips."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from referencenet.preprocess.face_outline import LIPS, OVAL
from referencenet.preprocess.one_face import LEFT_EDGE, NOSE, RIGHT_EDGE
from tiny import tiny_pipeline

WIDTH = 15.33  # centimetres between the face's edges


def face_points(side: int = 64, yaw: float = 0.0, share: float = 0.6, middle: tuple[float, float] = (0.5, 0.5)) -> Any:
    """Landmarks of a face, (468, 2) in pixels of a square picture.

    Args:
        side: Of the picture.
        yaw: How far the head is turned, in degrees.
        share: Width of the face when it looks at the camera, of the picture's.
        middle: Of the face, as fractions of the picture.
    """
    around = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    points = np.zeros((468, 3))
    points[list(OVAL)] = np.stack([np.sin(around) * 7.66, -np.cos(around) * 9.5, np.full(len(OVAL), -2.4)], 1)
    lips = np.linspace(0, 2 * np.pi, len(LIPS), endpoint=False)
    points[list(LIPS)] = np.stack([np.cos(lips) * 2.5, 4 + np.sin(lips), np.full(len(LIPS), 5.0)], 1)
    points[RIGHT_EDGE], points[LEFT_EDGE], points[NOSE] = (-7.66, -0.7, -2.44), (7.66, -0.7, -2.44), (0, 1.1, 7.48)
    turn = np.radians(yaw)
    x = points[:, 0] * np.cos(turn) + points[:, 2] * np.sin(turn)
    return (np.stack([x, points[:, 1]], axis=1) * share / WIDTH + middle) * side


def short_clips(system: str, clip_frames: int = 4) -> Any:
    """A tiny pipeline that draws few frames a clip."""
    pipe = tiny_pipeline(system)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe.register_to_config(clip_frames=clip_frames, motion_frames=2)
    pipe.set_progress_bar_config(disable=True)
    return pipe
