"""Where face and lips are in a portrait, as Hallo needs it: a rectangle, and three soft masks of pose, face and lip.

Rectangles around landmarks, expanded, blurred at 64 x 64 and made 8 bit, as published (fudan-generative-vision/hallo,
8fd7c57). Landmarks are MediaPipe's: 468 points of the face mesh or 478 with irises. Letters: (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from referencenet.inputs import read_arrays, read_json
from referencenet.later import later
from referencenet.media.images import Picture, read_mask
from referencenet.preprocess.face_mesh import checked_landmarks
from referencenet.preprocess.face_outline import LIPS, OVAL

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    (torch,) = later("torch")

SIDE = 64
"""Of the masks."""
FACE_BLUR, LIP_BLUR = 51, 31
"""Pixels of the Gaussian kernels, at 64 x 64."""
FACE_EXPAND, LIP_EXPAND = 1.2, 2.0
"""How much larger than the landmarks' bounds the rectangles are; in training 1."""

Box = tuple[int, int, int, int]
"""Left, right, top, bottom; right and bottom are outside."""


@dataclass(frozen=True, kw_only=True)
class FaceRegions:
    """Regions of a portrait.

    Attributes:
        place: The face's rectangle, (H, W) of 0 and 255.
        pose: What is no face, (64, 64) from 0 to 255.
        face: The face without the lips, likewise.
        lip: The lips, likewise.
    """

    place: np.ndarray
    pose: np.ndarray
    face: np.ndarray
    lip: np.ndarray

    @classmethod
    def of(
        cls,
        landmarks: Any,
        size: tuple[int, int],
        *,
        face_expand: float = FACE_EXPAND,
        lip_expand: float = LIP_EXPAND,
    ) -> FaceRegions:
        """Regions by landmarks.

        Args:
            landmarks: (468 or 478, 2), x and y in pixels.
            size: Width and height of the portrait.
            face_expand: How much larger the face's rectangle is than its outline's bounds.
            lip_expand: Likewise of the lips.

        Raises:
            ValueError: If there are other landmarks, or a rectangle is empty.
        """
        points = checked_landmarks(landmarks)
        boxes = [expanded(bounds(points, which), size, by) for which, by in ((OVAL, face_expand), (LIPS, lip_expand))]
        return cls.of_boxes(boxes[0], boxes[1], size)

    @classmethod
    def of_film(cls, landmarks: Sequence[Any], size: tuple[int, int]) -> FaceRegions:
        """Regions of a film as in training: rectangles as large as the landmarks of all frames.

        Args:
            landmarks: Of each frame, (468 or 478, 2) in pixels.
            size: Width and height of the film.
        """
        frames = [checked_landmarks(each) for each in landmarks]
        boxes = [joined([bounds(points, which) for points in frames], size) for which in (OVAL, LIPS)]
        return cls.of_boxes(boxes[0], boxes[1], size)

    @classmethod
    def of_boxes(cls, face: Box, lip: Box, size: tuple[int, int]) -> FaceRegions:
        """Regions by the rectangles of face and lips in a picture of (width, height).

        Raises:
            ValueError: If one is empty.
        """
        place = filled(face, size)
        blurred_face, blurred_lip = blurred(place, FACE_BLUR), blurred(filled(lip, size), LIP_BLUR)
        return cls(
            place=place,
            pose=((1 - blurred_face / 255) * 255).astype(np.uint8),
            face=np.maximum(blurred_face.astype(np.int16) - blurred_lip, 0).astype(np.uint8),
            lip=blurred_lip,
        )

    @classmethod
    def read(cls, path: str | Path, size: tuple[int, int]) -> FaceRegions:
        """Regions of a file that `refnet preprocess` wrote of a portrait, or of a film as in training.

        Args:
            path: An npz of `--to face-masks` or `--to landmarks`, or a JSON file of `--to face-box`.
            size: Width and height of the portrait.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is another one, or of a picture of another size.
        """
        path = Path(path)
        try:
            if path.suffix == ".json":
                document = read_json(path, "faces' boxes")
                boxes = [[_turned(frame[name]) for name in ("box", "lips")] for frame in document["frames"]]
                own, found = (document["width"], document["height"]), {"boxes": boxes}
            else:
                found = read_arrays(path, "masks or landmarks of a face")
                own = found["place"].shape[::-1] if "place" in found else size
            known = {"boxes", "landmarks", *cls.__dataclass_fields__} & found.keys()
            if not known:
                raise KeyError("boxes, landmarks or masks")
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise ValueError(
                f"{path} does not say where a face is ({error}); expected what `refnet preprocess` writes with --to "
                "face-masks (.npz), landmarks (.npz) or face-box (.json)."
            ) from error
        if tuple(own) != tuple(size):
            raise ValueError(f"{path} is of a picture of {own[0]} x {own[1]}, the portrait is {size[0]} x {size[1]}.")
        if "landmarks" in found:
            points = [frame[:, :2] * size for frame in checked_landmarks(found["landmarks"], frames=True)]
            return cls.of(points[0], size) if len(points) == 1 else cls.of_film(points, size)
        if "boxes" in found:
            faces, lips = zip(*found["boxes"], strict=True)
            if len(faces) > 1:
                return cls.of_boxes(joined(faces, size), joined(lips, size), size)
            return cls.of_boxes(expanded(faces[0], size, FACE_EXPAND), expanded(lips[0], size, LIP_EXPAND), size)
        return cls(**found)

    @classmethod
    def of_pictures(cls, place: Picture, pose: Picture, face: Picture, lip: Picture) -> FaceRegions:
        """Regions that are drawn already, each in any form that a mask may have; white marks what is meant."""
        soft = [
            np.asarray(read_mask(each).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for each in (pose, face, lip)
        ]
        return cls(place=np.asarray(read_mask(place)), pose=soft[0], face=soft[1], lip=soft[2])

    def located(self, size: tuple[int, int]) -> Tensor:
        """The rectangle at (width, height) as a face locator takes it, (1, 3, height, width) in [0, 1]."""
        image = Image.fromarray(self.place).resize(size, Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).float().div(255).expand(1, 3, -1, -1)

    def pyramid(self, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """The masks of pose, face and lip at (height, width) of each level, behind each other.

        Returns:
            (3, sum of height * width) in [0, 1].
        """
        levels: list[Tensor] = []
        for height, width in sizes:
            images = [Image.fromarray(mask) for mask in (self.pose, self.face, self.lip)]
            arrays = [np.array(image.resize((width, height), Image.Resampling.BILINEAR)) for image in images]
            levels.append(torch.from_numpy(np.stack(arrays)).float().div(255).flatten(1))
        return torch.cat(levels, dim=1)


def bounds(points: np.ndarray, which: Sequence[int]) -> Box:
    """The bounds of some landmarks (468 or 478, 2 or 3), rounded."""
    chosen = points[list(which), :2]
    (left, top), (right, bottom) = chosen.min(axis=0), chosen.max(axis=0)
    return round(left), round(right), round(top), round(bottom)


def expanded(box: Box, size: tuple[int, int], by: float) -> Box:
    """A rectangle made larger about its centre; beyond a border it is shifted back inside of (width, height)."""
    left, right = _expanded_side(box[0], box[1], size[0], by)
    top, bottom = _expanded_side(box[2], box[3], size[1], by)
    return left, right, top, bottom


def filled(box: Box, size: tuple[int, int]) -> np.ndarray:
    """A rectangle of 255 on 0, (height, width).

    Raises:
        ValueError: If nothing is inside.
    """
    canvas = np.zeros((size[1], size[0]), dtype=np.uint8)
    left, right, top, bottom = box
    canvas[top:bottom, left:right] = 255
    if not canvas.any():
        raise ValueError(
            f"the rectangle {box} (left, right, top, bottom) is empty in a picture of {size[0]} x {size[1]}; give "
            "landmarks in pixels of the portrait."
        )
    return canvas


def blurred(mask: np.ndarray, kernel: int) -> np.ndarray:
    """A mask at 64 x 64, blurred by a Gaussian of so many pixels and stretched from 0 to 255."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "masks of face and lips need OpenCV: pip install 'referencenet[preprocess]', or give drawn regions."
        ) from error
    soft = cv2.GaussianBlur(cv2.resize(mask, (SIDE, SIDE)), (kernel, kernel), 0)
    return cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def joined(boxes: Sequence[Box], size: tuple[int, int]) -> Box:
    """The rectangle around those of all frames, as in training."""
    found = np.array([expanded(box, size, 1.0) for box in boxes])
    low, high = found.min(axis=0), found.max(axis=0)
    return int(low[0]), int(high[1]), int(low[2]), int(high[3])


def _turned(corners: Sequence[float]) -> Box:
    """Left, top, right, bottom as a `Box`."""
    left, top, right, bottom = map(round, corners)
    return left, right, top, bottom


def _expanded_side(low: int, high: int, limit: int, by: float) -> tuple[int, int]:
    """One axis of `expanded`."""
    middle, half = (low + high) // 2, (high - low) * by // 2
    low, high = round(middle - half), round(middle + half)
    if low < 0:
        low, high = 0, min(high - low, limit)
    if high > limit:
        low, high = max(low - (high - limit), 0), limit
    return low, high
