"""Turned squares of a picture: what a network sees, and its points back in the picture's pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from referencenet.preprocess.faces import Box


@dataclass(frozen=True, kw_only=True)
class Region:
    """A square of a picture, in its pixels; it may reach beyond the border.

    Attributes:
        x: Of the middle.
        y: Of the middle.
        side: Length.
        angle: In radians, clockwise: how far what is upright in the square is turned in the picture.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    @classmethod
    def whole(cls, size: tuple[int, int]) -> Region:
        """The smallest one around a picture of (width, height)."""
        return cls(x=size[0] / 2, y=size[1] / 2, side=max(size))

    @classmethod
    def around(cls, points: np.ndarray, scale: float, angle: float = 0.0, rise: float = 0.0) -> Region:
        """A square around points.

        Args:
            points: (n, 2) in pixels.
            scale: Its side, over the longer side of the points' box in the turned frame.
            angle: Of the square.
            rise: How far its middle is moved up in the turned frame, over the box's longer side.
        """
        turn = _turn(angle)
        turned = points @ turn  # rows from the left: by the inverse
        low, high = turned.min(axis=0), turned.max(axis=0)
        longer = float((high - low).max())
        middle = turn @ ((low + high) / 2 - (0, rise * longer))
        return cls(x=float(middle[0]), y=float(middle[1]), side=max(scale * longer, 1.0), angle=angle)

    @property
    def box(self) -> Box:
        """Left, top, right, bottom of the square, as if it were not turned."""
        half = self.side / 2
        return self.x - half, self.y - half, self.x + half, self.y + half

    def crop(self, image: Image.Image, size: int) -> np.ndarray:
        """What is in the square, black beyond the border.

        Args:
            image: RGB.
            size: Side of the result in pixels.

        Returns:
            (size, size, 3) float32 in [0, 1].
        """
        shrunk = max(1, int(self.side / size))  # no pixel is skipped where the square is much larger than `size`
        small = image.reduce(shrunk) if shrunk > 1 else image
        ratio = image.width / small.width, image.height / small.height
        (a, b, c), (d, e, f) = self._matrix(size).tolist()
        (a, b, c), (d, e, f) = (a / ratio[0], b / ratio[0], c / ratio[0]), (d / ratio[1], e / ratio[1], f / ratio[1])
        seen = small.transform((size, size), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
        return np.asarray(seen, dtype=np.float32) / 255

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) as fractions of the square, in the picture's pixels."""
        return np.asarray(points, dtype=np.float64) @ self._matrix(1)[:, :2].T + self._matrix(1)[:, 2]

    def points_of(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 3) as fractions of the square, in the picture's pixels; so is their depth."""
        points = np.asarray(points, dtype=np.float64)
        return np.column_stack([self.to_picture(points[:, :2]), points[:, 2] * self.side])

    def paste(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Values of the square's pixels at their places in a picture.

        Args:
            values: (side, side) in [0, 1].
            size: Width and height of the picture.

        Returns:
            (height, width) float32; 0 outside of the square.
        """
        forth = np.vstack([self._matrix(len(values)), (0, 0, 1)])
        back = np.linalg.inv(forth)[:2].ravel().tolist()
        mask = Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))
        placed = mask.transform(size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
        return np.asarray(placed, dtype=np.float32) / 255

    def _matrix(self, size: int) -> np.ndarray:
        """From places in a square of `size` to the picture, (2, 3)."""
        turn = _turn(self.angle) * (self.side / size)
        return np.column_stack([turn, (self.x, self.y) - turn @ (size / 2, size / 2)])


def _turn(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (sum(areas) - width * height)
