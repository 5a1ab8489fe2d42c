"""Changes of pictures that are drawn once for a sample and applied to all its pictures alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from referencenet.media.images import to_tensor

Box = tuple[float, float, float, float]
"""Left, top, right and bottom as shares of the picture's sides."""

RATIO = 0.9, 1.0
"""Of width to height, of the published crops."""


def uniform(low: float, high: float, random: torch.Generator) -> float:
    """A number in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=random))


def draw_crop(size: tuple[int, int], least: float, random: torch.Generator) -> Box:
    """A random crop as the published trainings draw it, torchvision's RandomResizedCrop with ratios of 0.9 to 1.

    Args:
        size: Width and height of the picture.
        least: Share of its area that is kept, in (0, 1].
        random: Of the draw.
    """
    width, height = size
    for _ in range(10):
        area = width * height * uniform(least, 1.0, random)
        ratio = math.exp(uniform(math.log(RATIO[0]), math.log(RATIO[1]), random))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(torch.randint(width - w + 1, (1,), generator=random))
            top = int(torch.randint(height - h + 1, (1,), generator=random))
            return left / width, top / height, (left + w) / width, (top + h) / height
    ratio = width / height  # the middle, as large as can be
    w = width if ratio < RATIO[1] else round(height * RATIO[1])
    h = height if ratio > RATIO[0] else round(width / RATIO[0])
    w, h = min(w, width), min(h, height)
    left, top = (width - w) // 2, (height - h) // 2
    return left / width, top / height, (left + w) / width, (top + h) / height


def cut(picture: Image.Image, box: Box | None, size: tuple[int, int]) -> Image.Image:
    """A part of a picture, or all of it, at (width, height)."""
    if box is None:
        return picture.resize(size, Image.Resampling.BILINEAR)
    sides = picture.width, picture.height
    pixels = tuple(share * side for share, side in zip(box, sides * 2, strict=True))
    return picture.resize(size, Image.Resampling.BILINEAR, box=pixels)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Jitter:
    """Factors of contrast, brightness and saturation, and a turn of the hue in [-0.5, 0.5]."""

    contrast: float
    brightness: float
    hue: float
    saturation: float

    @classmethod
    def drawn(cls, random: torch.Generator) -> Jitter:
        """As IDM-VTON's published training draws them."""
        return cls(
            contrast=uniform(0.7, 1.3, random),
            brightness=uniform(0.5, 1.5, random),
            hue=uniform(-0.5, 0.5, random),
            saturation=uniform(0.5, 1.5, random),
        )

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The picture in other colours."""
        picture = ImageEnhance.Contrast(picture).enhance(self.contrast)
        picture = ImageEnhance.Brightness(picture).enhance(self.brightness)
        hue, saturation, value = picture.convert("HSV").split()
        turned = (np.asarray(hue).astype(int) + round(self.hue * 255)) % 256
        channels = (Image.fromarray(turned.astype(np.uint8)), saturation, value)
        picture = Image.merge("HSV", channels).convert("RGB")
        return ImageEnhance.Color(picture).enhance(self.saturation)


def moved(picture: Image.Image, scale: float, shift: tuple[float, float], fill: int) -> Image.Image:
    """A picture scaled about its middle and shifted by shares of its sides; what comes in has one grey."""
    width, height = picture.size
    x, y = shift[0] * width, shift[1] * height
    matrix = (1 / scale, 0, width / 2 - (width / 2 + x) / scale, 0, 1 / scale, height / 2 - (height / 2 + y) / scale)
    colour = fill if picture.mode == "L" else (fill,) * 3
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=colour
    )  # fmt: skip


def signed(picture: Image.Image) -> Tensor:
    """(3, H, W) in [-1, 1]."""
    return to_tensor(picture) * 2 - 1
