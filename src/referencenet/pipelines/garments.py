"""Pictures of garments and of the persons who shall wear them, as StableGarment's programs prepare them.

Letters: r rows, (H, W) pixels, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from referencenet.links.bank import ReferenceBank
from referencenet.media.images import Picture, read_image, read_mask, to_tensor
from referencenet.pipelines.encoders import listed, mask_pixels, pixels_of, stretched
from referencenet.pipelines.spec import Canvas, Shown

GREY = 128 / 127.5 - 1
"""Of the place where a garment was, in [-1, 1]."""

PROPORTIONS = 0.02
"""How far a mask's proportions may differ from its picture's, by rounding of sizes."""


def magnified(picture: Picture, size: tuple[int, int]) -> Image.Image:
    """A garment as the text-to-image script shows it, at (width, height).

    Squeezed to the size, its shorter side brought to the longer one's length, its middle cut out: 384 x 512 magnifies
    by 4/3 and loses the border.
    """
    small = stretched(picture, size)
    shorter, longer = min(size), max(size)
    width, height = (longer if side == shorter else longer * side // shorter for side in size)
    left, top = round((width - size[0]) / 2), round((height - size[1]) / 2)
    large = small.resize((width, height), Image.Resampling.BILINEAR)
    return large.crop((left, top, left + size[0], top + size[1]))


def num_garments(garment: Any) -> int:
    """How many garments a call was given, in whatever form."""
    if isinstance(garment, ReferenceBank):
        return garment.rows
    if isinstance(garment, Mapping):
        return next(iter(garment.values())).rows
    if isinstance(garment, Shown):
        return garment.latents.shape[0]
    return 1 if callable(garment) else len(listed(garment))


def num_texts(prompt: str | Sequence[str], embeds: Tensor | None) -> int:
    """How many prompts a call was given."""
    if embeds is not None:
        return embeds.shape[0]
    return 1 if isinstance(prompt, str) else len(prompt)


def check_persons(persons: Any, masks: Any, densepose: Any) -> dict[str, int]:
    """How many of each a call was given.

    Args:
        persons: Pictures or latents (r, 4, h, w).
        masks: Pictures.
        densepose: Pictures.

    Raises:
        ValueError: If one is missing, or a mask's proportions are not its picture's.
    """
    for what, given in (("person", persons), ("mask", masks), ("densepose", densepose)):
        if given is None:
            raise ValueError(f"no {what} was given; give a picture, or as many as there are results.")
    counts = {
        "persons": len(listed(persons)),
        "masks": len(listed(masks)),
        "DensePose pictures": len(listed(densepose)),
    }
    if not isinstance(persons, Tensor) or persons.ndim < 4 or persons.shape[1] == 3:
        sizes = [read_image(picture).size for picture in listed(persons)]
        for i, mask in enumerate(listed(masks)):
            (width, height), (own_width, own_height) = read_mask(mask).size, sizes[min(i, len(sizes) - 1)]
            if abs(width * own_height / (height * own_width) - 1) > PROPORTIONS:
                raise ValueError(
                    f"mask {i} is {width} x {height} pixels, its person {own_width} x {own_height}; give a mask of the "
                    "person's picture."
                )
    return counts


def person_condition(masks: Any, densepose: Any, canvas: Canvas) -> Tensor:
    """Keep masks (1 = keep) and DensePose in [0, 1], (r, 4, H, W).

    Args:
        masks: White where the person is repainted.
        densepose: Pictures; a float tensor (r, 3, H, W) is taken as it is.
        canvas: What is drawn.

    Raises:
        ValueError: If a mask is black everywhere.
    """
    keep = 1 - mask_pixels(listed(masks), canvas.size)
    if (
        isinstance(densepose, Tensor)
        and densepose.is_floating_point()
        and densepose.shape[1:] == (3, *canvas.size[::-1])
    ):
        drawn = densepose.float()
    else:
        drawn = torch.stack([to_tensor(stretched(picture, canvas.size)) for picture in listed(densepose)])
    rows = max(len(keep), len(drawn))
    return torch.cat([keep.expand(rows, -1, -1, -1).to(drawn), drawn.expand(rows, -1, -1, -1)], dim=1)


def without_garment(persons: Any, masks: Any, canvas: Canvas) -> Tensor:
    """Persons whose masked places are grey, (r, 3, H, W) in [-1, 1]; masks None: as they are."""
    pixels = pixels_of([stretched(picture, canvas.size) for picture in listed(persons)])
    if masks is None:
        return pixels
    hidden = mask_pixels(listed(masks), canvas.size)
    return torch.where(hidden > 0, torch.full_like(pixels[:1], GREY), pixels)
