"""Pictures of garments and of the persons who shall wear them, as StableGarment's programs prepare them.

Letters: r rows, (H, W) pixels, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from referencenet.links.bank import ReferenceBank
from referencenet.links.series import BankSeries
from referencenet.media.images import Picture, read_image, read_mask, to_tensor
from referencenet.pipelines.encoders import encode_pixels, listed, mask_pixels, pixels_of, stretched, text_states
from referencenet.pipelines.spec import Canvas, Shown, each_for

GREY = 128 / 127.5 - 1
"""Of the place where a garment was, in [-1, 1]."""

PROPORTIONS = 0.02
"""How far a mask's proportions may differ from its picture's, by rounding of sizes."""


def magnified(picture: Picture, size: tuple[int, int]) -> Image.Image:
    """A garment as the text-to-image script shows it, at (width, height).

    Squeezed to the size, its shorter side brought to the longer one's length, its middle kept: 384 x 512 magnifies
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
    if isinstance(garment, BankSeries):
        return next(iter(garment.values())).rows
    if isinstance(garment, Shown):
        return garment.latents.shape[0]
    return 1 if callable(garment) else len(listed(garment))


def check_persons(persons: Any, masks: Any, densepose: Any, latents: Tensor | None = None) -> dict[str, int]:
    """How many of each a call was given.

    Args:
        persons: Pictures.
        masks: Pictures.
        densepose: Pictures.
        latents: Instead of persons, (r, 4, h, w).

    Raises:
        ValueError: If one is missing or given twice, or a mask's proportions are not its picture's.
    """
    if persons is not None and latents is not None:
        raise ValueError("the person was given twice, as a picture and as agnostic_latents; give one of them.")
    for what, given in (("person", latents if persons is None else persons), ("mask", masks), ("densepose", densepose)):
        if given is None:
            raise ValueError(f"no {what} was given; give a picture, or as many as there are results.")
    if persons is not None:
        check_masks(persons, masks)
    return {
        "persons": len(listed(persons)) if latents is None else latents.shape[0],
        "masks": len(listed(masks)),
        "DensePose pictures": len(listed(densepose)),
    }


def check_masks(persons: Any, masks: Any) -> None:
    """Refuse masks that are not of their persons' pictures.

    Args:
        persons: Pictures.
        masks: One for each, or several of the last.

    Raises:
        ValueError: If a mask's proportions are not its picture's.
    """
    people = [read_image(picture).size for picture in listed(persons)]
    for i, mask in enumerate(listed(masks)):
        (width, height), (own_width, own_height) = read_mask(mask).size, people[min(i, len(people) - 1)]
        if abs(width * own_height / (height * own_width) - 1) > PROPORTIONS:
            raise ValueError(
                f"mask {i} is {width} x {height} pixels, its person {own_width} x {own_height}; give a mask of the "
                "person's picture."
            )


def person_condition(masks: Any, densepose: Any, canvas: Canvas) -> Tensor:
    """Keep masks (1 = keep) and DensePose in [0, 1], (r, 4, H, W).

    Args:
        masks: White where the person is repainted.
        densepose: Pictures; a float tensor (r, 3, H, W) is taken as it is.
        canvas: What is drawn.

    Raises:
        ValueError: If a mask is black everywhere, or DensePose is not finite.
    """
    keep = 1 - mask_pixels(listed(masks), canvas.size)
    size = canvas.size[::-1]
    if isinstance(densepose, Tensor) and densepose.is_floating_point() and tuple(densepose.shape[1:]) == (3, *size):
        drawn = densepose.float()
        if not bool(torch.isfinite(drawn).all()):
            raise ValueError("densepose holds values that are not finite; give numbers in [0, 1].")
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


def show_garments(
    pipe: Any,
    garments: Any,
    prompt: str | Sequence[str],
    embeds: Tensor | None,
    canvas: Canvas,
    fit: Callable[[Picture, tuple[int, int]], Image.Image],
) -> Shown:
    """Mean latents of garments (r, 4, h, w), and their prompts' states, one for all or one each.

    Args:
        pipe: With an autoencoder and a text model.
        garments: Pictures.
        prompt: What they are.
        embeds: Instead of `prompt`, (1 or r, tokens, channels).
        canvas: Its size is theirs.
        fit: How a picture comes to a (width, height).
    """
    pixels = pixels_of([fit(picture, canvas.size) for picture in listed(garments)])
    texts = [prompt] if isinstance(prompt, str) else list(prompt)
    states = text_states(pipe, texts) if embeds is None else embeds
    return Shown(latents=encode_pixels(pipe, pixels, keep=True), context=each_for(states, len(pixels)))


def person_features(
    pipe: Any,
    persons: Any,
    masks: Any,
    densepose: Any,
    canvas: Canvas,
    *,
    is_agnostic: bool = False,
    latents: Tensor | None = None,
) -> Callable[[], Tensor]:
    """What the pipeline's guider makes of persons, (r, width, h, w), when it is asked.

    Args:
        pipe: With an autoencoder and a guider.
        persons: Pictures.
        masks: White where the person is repainted.
        densepose: As `person_condition` takes it.
        canvas: What is drawn.
        is_agnostic: Whether pictures show no garment; else the masks' places are made grey.
        latents: Instead of persons, scaled latents (r, 4, h, w) of them without the garment.

    Raises:
        ValueError: If latents are of another size than the canvas.
    """
    condition = person_condition(masks, densepose, canvas)
    expected = tuple(side // pipe.vae_scale_factor for side in (canvas.height, canvas.width))
    if latents is not None and tuple(latents.shape[2:]) != expected:
        raise ValueError(
            f"agnostic_latents are {tuple(latents.shape)}; expected (persons, 4, {expected[0]}, {expected[1]})."
        )
    pixels = None if latents is not None else without_garment(persons, None if is_agnostic else masks, canvas)

    def features() -> Tensor:
        hidden = latents if pixels is None else encode_pixels(pipe, pixels)
        assert hidden is not None  # latents or pixels are there
        rows, place = max(len(condition), len(hidden)), (pipe.device_of(pipe.guider), pipe.guider.dtype)
        return pipe.guider(each_for(condition, rows).to(*place), each_for(hidden, rows).to(*place))

    return features
