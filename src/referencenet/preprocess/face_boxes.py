"""Where a face may move, as EMO's face locator sees it: a white rectangle on black.

In training the rectangle covers the face in all frames of a clip; of a portrait alone it is the face's box, each side
moved outwards by a share of the box (0.3, a choice of ours). Boxes are (left, right, top, bottom) in pixels; right and
bottom are outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from referencenet.media.images import read_image
from referencenet.preprocess.face_outline import OVAL
from referencenet.preprocess.face_regions import Box, bounds, filled
from referencenet.preprocess.portrait import Portrait

MARGIN = 0.3
"""Share of the box by which each side moves outwards."""


def face_place(portrait: Portrait, size: tuple[int, int], margin: float = MARGIN) -> Tensor:
    """Where a portrait's face may move.

    Args:
        portrait: With landmarks, or with regions, whose `place` is taken as it is.
        size: (width, height) of the result.
        margin: Share of the face's box by which each side moves outwards.

    Returns:
        (1, 1, height, width) of 0 and 1.

    Raises:
        ValueError: If the portrait does not say where its face is, or is not square.
    """
    if portrait.landmarks is None or portrait.regions is not None:
        place = portrait.located().place
    else:
        width, height = read_image(portrait.picture).size
        if width != height:
            raise ValueError(f"the portrait is {width} x {height}; crop it to a square around the face.")
        box = bounds(portrait.points(), OVAL)
        place = filled(widened(box, (width, height), margin), (width, height))
    return _as_tensor(place, size)


def boxes_place(boxes: Sequence[Any], size: tuple[int, int], drawn: tuple[int, int] | None = None) -> Tensor:
    """The union of a clip's face boxes as a mask, as in training.

    Args:
        boxes: One for each frame.
        size: (width, height) of the frames.
        drawn: Of the result; None: that of the frames.

    Returns:
        (1, 1, height, width) of 0 and 1.

    Raises:
        ValueError: If there is no box, or an empty one.
    """
    if not len(boxes):
        raise ValueError("there are no face boxes; give one for each frame: left, right, top, bottom in pixels.")
    union = np.zeros((size[1], size[0]), dtype=np.uint8)
    for left, right, top, bottom in boxes:
        union |= filled((int(left), int(right), int(top), int(bottom)), size)
    return _as_tensor(union, drawn or size)


def widened(box: Box, size: tuple[int, int], margin: float) -> Box:
    """A box whose sides moved outwards by a share of it, cut at the borders of (width, height)."""
    left, right, top, bottom = box
    across, down = round((right - left) * margin), round((bottom - top) * margin)
    return max(left - across, 0), min(right + across, size[0]), max(top - down, 0), min(bottom + down, size[1])


def _as_tensor(mask: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(H, W) of 0 and 255 at another (width, height): (1, 1, height, width) of 0 and 1."""
    image = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(image)).ge(128).float()[None, None]
