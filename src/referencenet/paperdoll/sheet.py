"""Several figures side by side in one picture: twins, turnarounds, character sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from referencenet.paperdoll.render import Size, picture_size, render
from referencenet.paperdoll.scene import Scene


def sheet(scenes: Sequence[Scene], columns: int, size: Size = 64, gutter: int = 0) -> np.ndarray:
    """Draw scenes as panels of one picture, row by row.

    Args:
        scenes: One scene per panel; they may show one character or several.
        columns: Panels in a row.
        size: Size of one panel, as for `render`.
        gutter: White pixels between panels.

    Returns:
        (rows * height + gaps, columns * width + gaps, 3) uint8; panels left over stay white.
    """
    if not scenes:
        raise ValueError("scenes is empty; expected at least one scene to draw")
    if columns < 1 or gutter < 0:
        raise ValueError(
            f"columns is {columns} and gutter {gutter}; expected at least 1 column and a gutter of 0 or more"
        )
    width, height = picture_size(size)
    rows = -(-len(scenes) // columns)
    picture = np.full(
        (rows * height + (rows - 1) * gutter, columns * width + (columns - 1) * gutter, 3), 255, dtype=np.uint8
    )
    for i, scene in enumerate(scenes):
        top, left = (i // columns) * (height + gutter), (i % columns) * (width + gutter)
        picture[top : top + height, left : left + width] = render(scene, size)
    return picture


def turnaround(scene: Scene, num_views: int = 8) -> list[Scene]:
    """Turn a figure around its own axis in equal steps, beginning as it stands."""
    if num_views < 1:
        raise ValueError(f"num_views is {num_views}; expected at least 1")
    return [turned(scene, 360.0 * i / num_views) for i in range(num_views)]


def turned(scene: Scene, degrees: float) -> Scene:
    """Turn a figure by an angle to the right of the picture, and name its view anew."""
    yaw = (scene.pose.yaw + degrees + 180) % 360 - 180
    view = "front" if abs(yaw) < 22 else "back" if abs(yaw) > 112 else "left" if yaw < 0 else "right"
    return replace(scene, pose=replace(scene.pose, yaw=yaw, view=view))
