"""Pictures of other proportions than the result: cut, with a border, or stretched, and what was done in words."""

from __future__ import annotations

from typing import Literal

from PIL import Image, ImageOps

from referencenet.media.images import Picture, read_image

Fit = Literal["crop", "pad", "stretch"]
"""How a picture comes to a size of other proportions."""

ALIKE = 0.01
"""How far proportions may differ, by rounding of sizes, and still be the same."""


def fitted(picture: Picture, size: tuple[int, int], how: Fit, ground: str = "white") -> Image.Image:
    """A picture at a size.

    Args:
        picture: As `read_image` takes it; a Pillow picture of mode L, a mask, stays one.
        size: Width and height in pixels.
        how: "crop" keeps the middle, "pad" puts a border beside or above and below, "stretch" keeps no proportions.
        ground: Colour of the border.

    Returns:
        RGB, or L of a mask.

    Raises:
        ValueError: If `how` is something else.
    """
    is_mask = isinstance(picture, Image.Image) and picture.mode == "L"
    image = picture if is_mask else read_image(picture)
    resampling = Image.Resampling.BILINEAR if is_mask else Image.Resampling.LANCZOS
    if how == "crop":
        return ImageOps.fit(image, size, resampling)
    if how == "pad":
        return ImageOps.pad(image, size, resampling, color=ground)
    if how == "stretch":
        return image.resize(size, resampling)
    raise ValueError(f"fit is {how!r}; it can be 'crop', 'pad' or 'stretch'.")


def has_other_proportions(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether a picture of one size would be cut, padded or stretched to another."""
    return abs(size[0] * wanted[1] / (size[1] * wanted[0]) - 1) > ALIKE


def fitting_told(name: str, size: tuple[int, int], wanted: tuple[int, int], how: Fit | None, usual: str) -> str | None:
    """What is done to a picture, in words; None if its proportions fit.

    Args:
        name: Of the picture.
        size: Its width and height.
        wanted: Those of the result.
        how: What was chosen; None: what is usual.
        usual: What the system does by itself, in words.
    """
    if not has_other_proportions(size, wanted):
        return None
    done = {"crop": "its middle is kept", "pad": "it gets a border", "stretch": "it is stretched"}
    choice = "" if how is not None else "; --fit crop, pad or stretch chooses"
    return (
        f"{name} is {size[0]} x {size[1]} pixels, the result {wanted[0]} x {wanted[1]}: "
        f"{usual if how is None else done[how]}{choice}."
    )
