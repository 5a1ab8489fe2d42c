"""Pictures of parts of a person: labels, masks, and what is refused. For Parts2Whole.

A part needs a mask: a given one, its picture's transparency, or what a segmenter finds. Grey values are kept, as
published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image

from referencenet.media.images import Picture, read_layers, read_mask, to_tensor

if TYPE_CHECKING:
    from torch import Tensor

LABELS = ("upper body clothes", "lower body clothes", "whole body clothes", "hair or headwear", "face", "shoes")
"""What the released model knows."""

PLACES = 6  # image tokens of the denoiser: most parts of a person


@dataclass(frozen=True, kw_only=True)
class PersonPart:
    """A picture that shows a part of the person.

    Attributes:
        picture: Of any size; it is stretched to the result's.
        label: One of `LABELS`.
        mask: White where the part is, of the picture's size; grey counts in part. None: the picture's transparency, or
            what a segmenter finds.
    """

    picture: Picture
    label: str
    mask: Picture | None = None


Segment = Callable[[Image.Image, str], Image.Image]
"""(picture, label) to a mask of the picture's size."""


def check_parts(parts: PersonPart | Sequence[PersonPart]) -> list[PersonPart]:
    """The parts of a person as a list.

    Raises:
        ValueError: If there are none or more than six, or a label is unknown or given twice.
    """
    found = [parts] if isinstance(parts, PersonPart) else list(parts)
    if not 1 <= len(found) <= PLACES:
        raise ValueError(f"{len(found)} parts were given; expected 1 to {PLACES}.")
    labels = [part.label for part in found]
    unknown = sorted(set(labels) - set(LABELS))
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if unknown:
        raise ValueError(f"there is no part {', '.join(map(repr, unknown))}; expected some of {', '.join(LABELS)}.")
    if twice:
        raise ValueError(f"the part {', '.join(map(repr, twice))} was given twice; give each label once.")
    return found


def segmented(part: PersonPart, segmenter: Segment | None) -> PersonPart:
    """The part with a mask by the segmenter where it needs one."""
    if segmenter is None or part.mask is not None:
        return part
    colours, opacity = read_layers(part.picture)
    return part if opacity is not None else replace(part, mask=segmenter(colours, part.label))


def own_mask(part: PersonPart) -> Image.Image:
    """The part's mask, mode L, of its picture's size.

    Raises:
        ValueError: If there is none, or it is of another size than the picture.
    """
    colours, opacity = read_layers(part.picture)
    mask = opacity if part.mask is None else read_mask(part.mask)
    if mask is None:
        raise ValueError(
            f"the picture of {part.label!r} is opaque and has no mask, so all of it would count; give a mask, "
            "a picture with transparency, or a segmenter."
        )
    if mask.size != colours.size:
        raise ValueError(
            f"the mask of {part.label!r} is {mask.size}, its picture {colours.size}; give one of its size."
        )
    return mask


def mask_of(part: PersonPart, size: tuple[int, int]) -> Tensor:
    """The part's mask at (width, height), grey values kept: (1, H, W) in [0, 1].

    Raises:
        ValueError: If there is none, it is of another size than the picture, or black.
    """
    pixels = to_tensor(own_mask(part).resize(size, Image.Resampling.BICUBIC))
    if not bool(pixels.any()):
        raise ValueError(f"the mask of {part.label!r} is black everywhere, so nothing of it would be read.")
    return pixels
