"""IDM-VTON's clothes-agnostic mask: where a person may be repainted to wear something else (white), from ready maps.

Answers to the mask of the published demo and its golden case: garment, neck and arms grow, what must stay (hands,
face, shoes, the other garments) is cut out, holes are filled and the largest piece is kept. The human parsing and the
body points come from elsewhere; nothing is estimated here. Needs OpenCV (`pip install referencenet[preprocess]`): its
dilation and contours are part of the published result. Letters: H height, W width of the parsing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

Category = Literal["upper_body", "lower_body", "dresses"]
Point = tuple[float, float]

ATR_LABELS = (
    "background", "hat", "hair", "sunglasses", "upper clothes", "skirt", "pants", "dress", "belt", "left shoe",
    "right shoe", "head", "left leg", "right leg", "left arm", "right arm", "bag", "scarf", "neck",
)  # fmt: skip
"""The labels of a parsing, 0 to 18: those of ATR, and the neck."""

ARM_WIDTHS = {"hd": 60, "dc": 45}  # in pixels at a height of 512: VITON-HD's models and DressCode's

HEAD = (1, 3, 11)
KEPT = (9, 10, 1, 3, 16)  # shoes, hat, sunglasses, bag; hair is not: over the garment it is repainted
CLOTH: dict[str, tuple[int, ...]] = {"upper_body": (4, 7), "dresses": (7, 4, 5, 6), "lower_body": (6, 12, 13, 5)}
ALSO_KEPT: dict[str, tuple[int, ...]] = {"upper_body": (5, 6), "dresses": (), "lower_body": (4, 14, 15)}
NECK = 18

RIGHT_ARM, LEFT_ARM = (15, (2, 3, 4)), (14, (5, 6, 7))
"""Label, and shoulder, elbow and wrist among the 18 body points."""

FOREARM = 1.2  # how far a drawn forearm reaches: the wrist and a bit of the hand


def agnostic_mask(
    parsing: np.ndarray,
    keypoints: Sequence[Sequence[float]] | np.ndarray,
    *,
    category: Category = "upper_body",
    arm_width: int = ARM_WIDTHS["hd"],
) -> Image.Image:
    """Where a person may be repainted.

    Args:
        parsing: (H, W) labels 0 to 18, see `ATR_LABELS`; published at 512 x 384.
        keypoints: (18, 2) or (18, 3) body points of OpenPose, x and y in pixels of the parsing; (0, 0) = not seen.
        category: What is changed.
        arm_width: Of the drawn arms, in pixels at a height of 512: 60 for VITON-HD's weights, 45 for DressCode's.

    Returns:
        The mask, mode L, W x H: 255 = repaint.

    Raises:
        ValueError: If a shape, a label or the category is none of these, or nothing of the garment is found.
        ImportError: If OpenCV is missing.
    """
    points = _check(parsing, keypoints, category)
    width = max(1, round(arm_width * parsing.shape[0] / 512))
    head, cloth = _parts(parsing, HEAD), _parts(parsing, CLOTH[category])
    fixed = head | _parts(parsing, KEPT + ALSO_KEPT[category])
    cloth = _dilate(cloth, 5)
    if category != "lower_body":
        arms = np.zeros_like(cloth)
        for label, joints in (RIGHT_ARM, LEFT_ARM):
            parsed = _parts(parsing, (label,))
            drawn = _draw_arm([points[joint] for joint in joints], width, parsed, from_wrist=label == LEFT_ARM[0])
            fixed |= parsed & ~drawn  # the hand
            arms |= drawn
        cloth |= _dilate(_parts(parsing, (NECK,)), 1) & ~head
        cloth |= _dilate(arms, 4)
    mask = cloth & ~fixed
    if not mask[1:-1, 1:-1].any():
        raise ValueError(
            f"the parsing shows nothing of the category {category!r}, so nothing would be repainted; choose another "
            f"category of {', '.join(get_args(Category))}, or draw the mask yourself."
        )
    return Image.fromarray(_largest_piece(mask))


def _check(parsing: np.ndarray, keypoints: Any, category: str) -> list[Point]:
    """Check the maps; returns the points."""
    if category not in CLOTH:
        raise ValueError(f"category is {category!r}; it can be {', '.join(CLOTH)}.")
    if parsing.ndim != 2 or min(parsing.shape) < 3 or not np.issubdtype(parsing.dtype, np.integer):
        raise ValueError(
            f"parsing is {parsing.dtype} {parsing.shape}; expected whole numbers (H, W): "
            "a map of labels, not a coloured picture."
        )
    if parsing.min() < 0 or parsing.max() >= len(ATR_LABELS):
        raise ValueError(
            f"parsing has labels from {parsing.min()} to {parsing.max()}; expected 0 to "
            f"{len(ATR_LABELS) - 1}: ATR's, and 18 = neck."
        )
    points = np.asarray(keypoints, dtype=np.float64)
    if points.ndim != 2 or points.shape[0] != 18 or points.shape[1] not in (2, 3):
        raise ValueError(
            f"keypoints are {points.shape}; expected (18, 2): the 18 body points of OpenPose of one person, in pixels."
        )
    return [(float(x), float(y)) for x, y in points[:, :2]]


def _parts(parsing: np.ndarray, labels: Iterable[int]) -> np.ndarray:
    """Where a parsing has one of the labels, (H, W) bool."""
    return np.isin(parsing, list(labels))


def _draw_arm(joints: Sequence[Point], width: int, parsed: np.ndarray, *, from_wrist: bool) -> np.ndarray:
    """An arm as a thick line with round joints; the parsed arm where a joint was not seen. (H, W) bool.

    The published code looks at the wrist only and draws an unseen shoulder or elbow in the picture's corner.
    """
    if any(x <= 1 and y <= 1 for x, y in joints):
        return parsed
    shoulder, elbow, wrist = joints
    reach = (elbow[0] + FOREARM * (wrist[0] - elbow[0]), elbow[1] + FOREARM * (wrist[1] - elbow[1]))
    path = [(max(0, int(x)), max(0, int(y))) for x, y in (shoulder, elbow, reach)]
    canvas = Image.new("L", (parsed.shape[1], parsed.shape[0]))
    draw = ImageDraw.Draw(canvas)
    draw.line(path[::-1] if from_wrist else path, fill=255, width=width, joint="curve")
    half = width // 2
    box = (shoulder[0] - half, shoulder[1] - half, shoulder[0] + half, shoulder[1] + half)
    draw.arc(box, 0, 360, fill=255, width=half)
    return np.array(canvas) > 0


def _dilate(region: np.ndarray, times: int) -> np.ndarray:
    """Grow a region by squares of 5 x 5 pixels."""
    cv2 = _opencv()
    return cv2.dilate(region.astype(np.uint8), np.ones((5, 5), np.uint8), iterations=times) > 0


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a mask without its holes and without the picture's outermost pixels, uint8 0 or 255."""
    cv2 = _opencv()
    inner = np.pad(mask[1:-1, 1:-1].astype(np.uint8) * 255, 1)
    outside = inner.copy()
    cv2.floodFill(outside, None, (0, 0), 255)
    whole = inner | ~outside
    contours, _ = cv2.findContours(whole, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_TC89_L1)
    areas = [abs(cv2.contourArea(contour, True)) for contour in contours]
    piece = np.zeros_like(whole)
    cv2.drawContours(piece, contours, int(np.argmax(areas)), 255, thickness=-1)
    return piece


def _opencv() -> Any:
    """OpenCV, loaded when it is needed."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "the agnostic mask needs OpenCV: pip install 'referencenet[preprocess]', or give a mask of your own."
        ) from error
    return cv2
