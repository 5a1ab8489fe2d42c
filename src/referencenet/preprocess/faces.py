"""Faces of pictures as FlashFace takes them: cut out, turned upright, squared; and the mask of a face's place.

Cutting and turning are those of ali-vilab/FlashFace (commit fff0f07): the rounded box is cut out, then turned by the
angle of the eye line, nearest neighbours, corners black. No detector is part of this: give boxes, or a function that
finds faces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from referencenet.later import later
from referencenet.media.images import Picture, read_image

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    (torch,) = later("torch")

FACE_LATENTS = 28
FACE_SIZE = 8 * FACE_LATENTS  # pixels, as FlashFace was trained

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Face:
    """Where a face is in a picture, in pixels.

    Attributes:
        box: Left, top, right, bottom.
        left_eye: (x, y) of the eye on the picture's left; None: the face is not turned.
        right_eye: (x, y) of the other eye.
    """

    box: Box
    left_eye: Point | None = None
    right_eye: Point | None = None


Detector = Callable[[Image.Image], Sequence[Face]]
"""Finds the faces of an RGB picture."""


def find_face(picture: Picture, detector: Detector, person: int | None = None) -> Image.Image:
    """Cut out a face of a picture.

    Args:
        picture: As `read_image` takes it.
        detector: Finds faces.
        person: Whose of several, counted from the left from 1; None: there is only one.

    Raises:
        ValueError: If the picture does not show that face, or more than one and none was chosen.
    """
    image = read_image(picture)
    faces = sorted(detector(image), key=lambda face: face.box[0] + face.box[2])
    if person is not None and 1 <= person <= len(faces):
        return crop_face(image, faces[person - 1])
    if person is not None:
        raise ValueError(f"{len(faces)} faces were found in the picture of {image.width} x {image.height} pixels, so "
                         f"there is no person {person}, counted from the left from 1.")  # fmt: skip
    if len(faces) != 1:
        advice = (
            "give a larger or clearer picture, or cut the face out yourself with crop_face"
            if not faces
            else "choose one by its number from the left, or cut it out with crop_face"
        )
        raise ValueError(f"{len(faces) or 'no'} face{'s were' if len(faces) != 1 else ' was'} found in the picture of "
                         f"{image.width} x {image.height} pixels; exactly one is needed: {advice}.")  # fmt: skip
    return crop_face(image, faces[0])


def crop_face(picture: Picture, face: Face) -> Image.Image:
    """Cut a face out of a picture and turn it until its eyes are level.

    Args:
        picture: As `read_image` takes it.
        face: Its box, and its eyes if it is to be turned.

    Returns:
        RGB, the box's size.

    Raises:
        ValueError: If the box is empty or lies outside of the picture.
    """
    image = read_image(picture)
    left, top, right, bottom = (round(side) for side in face.box)
    if left >= right or top >= bottom or right <= 0 or bottom <= 0 or left >= image.width or top >= image.height:
        raise ValueError(
            f"the face's box is {face.box} in a picture of {image.width} x {image.height} pixels; "
            "expected left, top, right, bottom inside of it."
        )
    crop = image.crop((left, top, right, bottom))
    if face.left_eye is None or face.right_eye is None:
        return crop
    across, down = (b - a for a, b in zip(face.left_eye, face.right_eye, strict=True))
    return crop.rotate(math.degrees(math.atan2(down, across)))


def square_face(picture: Picture, size: int = FACE_SIZE) -> Image.Image:
    """Scale a face's longer side to `size` and centre it on a black square.

    Args:
        picture: A cut-out face, as `read_image` takes it.
        size: Side of the square in pixels.

    Returns:
        RGB, size x size.
    """
    image = read_image(picture)
    scale = size / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    square = Image.new("RGB", (size, size))
    square.paste(image.resize((width, height), Image.Resampling.BICUBIC), ((size - width) // 2, (size - height) // 2))
    return square


def face_mask(box: Sequence[float] | None, *, width: int, height: int, factor: int = 8) -> Tensor:
    """Where the face should be, as FlashFace's fifth input channel says it.

    The box becomes a square with its longer side, from its left top corner, cut off at the picture's border.

    Args:
        box: Left, top, right, bottom as fractions of the picture; None or four zeros leave the place free.
        width: Of the picture in pixels.
        height: Of the picture in pixels.
        factor: Pixels per latent.

    Returns:
        (height / factor, width / factor) of zeros and ones.

    Raises:
        ValueError: If the box does not lie inside [0, 1] or is turned around.
    """
    mask = torch.zeros(height, width)
    if box is None or not any(box):
        return mask[::factor, ::factor]
    if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise ValueError(
            f"the face box is {tuple(box)}; expected left, top, right, bottom as fractions in [0, 1], such as "
            "(0.3, 0.2, 0.6, 0.5), or None to leave the place free."
        )
    left, top, right, bottom = (int(part * side) for part, side in zip(box, (width, height) * 2, strict=True))
    side = max(right - left, bottom - top)
    mask[top : top + side, left : left + side] = 1
    return mask[::factor, ::factor].contiguous()
