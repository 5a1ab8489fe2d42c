"""A dressed person over the one who was given: what lies outside of the mask stays, to the bit.

An autoencoder changes every pixel a little, faces and hands visibly. The result is seen inside of the mask alone; along
its border it comes in gradually, on the inner side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageChops, ImageFilter

from referencenet.media.images import Picture, read_image, read_mask

BORDER = 1 / 64
"""Of the shorter side: how wide the result comes in."""


def composited(
    pipe: Any, person: Picture, mask: Picture, results: Sequence[Image.Image], border: int | None = None
) -> list[Image.Image]:
    """Put results over the person.

    Args:
        pipe: The system that drew them, which knows where in them its person stands.
        person: Who was dressed.
        mask: White (at least a half) was repainted; of the person's proportions.
        results: Pictures of one size.
        border: Pixels over which a result comes in, from 0; None: `BORDER` of the shorter side.

    Returns:
        Pictures of the results' size.

    Raises:
        ValueError: If the border is below 0.
    """
    if border is not None and border < 0:
        raise ValueError(f"border is {border}; expected a number of pixels from 0.")
    size = results[0].size
    width = round(min(size) * BORDER) if border is None else border
    below = pipe.at_size(read_image(person), size)
    inside = pipe.at_size(read_mask(mask), size).convert("L").point([0] * 128 + [255] * 128)
    return [Image.composite(result.convert("RGB"), below, faded(inside, width)) for result in results]


def faded(inside: Image.Image, width: int) -> Image.Image:
    """A mask of black and white that rises from its border inward over so many pixels; black stays black."""
    if width == 0:
        return inside
    core = inside if width < 2 else inside.filter(ImageFilter.MinFilter(2 * (width // 2) + 1))
    return ImageChops.darker(core.filter(ImageFilter.GaussianBlur(width / 2)), inside)
