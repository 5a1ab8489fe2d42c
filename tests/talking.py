"""What tests of talking portraits share: a face from any side, and short clips."""

from __future__ import annotations

import warnings
from typing import Any

from heads import aside, head
from tiny import tiny_pipeline

WIDTH = 14.94  # centimetres between the face's edges


def face_points(side: int = 64, yaw: float = 0.0, share: float = 0.6, middle: tuple[float, float] = (0.5, 0.5)) -> Any:
    """Landmarks of a face, (468, 3) in pixels of a square picture.

    Args:
        side: Of the picture.
        yaw: How far the head is turned, in degrees.
        share: Width of the face when it looks at the camera, of the picture's.
        middle: Of the face, as fractions of the picture.
    """
    return (aside(head(), yaw) * (1, -1, -1) * share / WIDTH + (*middle, 0)) * side


def short_clips(system: str, clip_frames: int = 4) -> Any:
    """A tiny pipeline that draws few frames a clip."""
    pipe = tiny_pipeline(system)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe.register_to_config(clip_frames=clip_frames, motion_frames=2)
    pipe.set_progress_bar_config(disable=True)
    return pipe
