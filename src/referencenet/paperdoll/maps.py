"""Exact annotations of every pixel: which part it shows, and where on the body it lies.

The flat shapes that the drawing code labelled are rendered once more without anti-aliasing, each in a colour that is
its number; so the maps follow the picture to the pixel, and a half-covered edge pixel belongs to one side.

Letters in shapes: H height, W width in pixels.
"""

from __future__ import annotations

import math

import numpy as np

from referencenet.paperdoll.ball import RX, RY
from referencenet.paperdoll.canvas import Canvas, rasterize
from referencenet.paperdoll.figure import Figure, half_width
from referencenet.paperdoll.render import Size, compose, picture_size, view_matrix
from referencenet.paperdoll.scene import Scene

PARTS = (
    "background",
    "hair",
    "face",
    "right ear",
    "left ear",
    "right eye",
    "left eye",
    "nose",
    "mouth",
    "beard",
    "glasses",
    "hat",
    "neck",
    "upper garment",
    "lower garment",
    "right arm",
    "left arm",
    "right hand",
    "left hand",
    "right leg",
    "left leg",
    "right shoe",
    "left shoe",
)
FACE = ("face", "right eye", "left eye", "nose", "mouth", "beard", "glasses")
HEAD = (*FACE, "hair", "hat", "right ear", "left ear")
# DensePose's numbers (front, back) of the parts; the head is parted into a right and a left half instead.
_DENSE = {
    "torso": (2, 1),
    "right hand": (3, 3),
    "left hand": (4, 4),
    "left foot": (5, 5),
    "right foot": (6, 6),
    "right upper leg": (9, 7),
    "left upper leg": (10, 8),
    "right lower leg": (13, 11),
    "left lower leg": (14, 12),
    "left upper arm": (17, 15),
    "right upper arm": (18, 16),
    "left lower arm": (21, 19),
    "right lower arm": (22, 20),
    "head": (23, 24),
}
_BODIES = ("", *_DENSE)
_BONES = {
    "upper arm": ("shoulder", "elbow"),
    "lower arm": ("elbow", "wrist"),
    "upper leg": ("hip", "knee"),
    "lower leg": ("knee", "ankle"),
    "hand": ("elbow", "wrist"),
    "foot": ("knee", "ankle"),
}


def label_map(canvas: Canvas, names: tuple[str, ...], size: Size, *, by: str = "part") -> np.ndarray:
    """Render the labelled shapes of a canvas; (H, W) uint8, the position of each pixel's `part` or `body` in names."""
    width, height = picture_size(size)
    numbers = {name: f"#0000{index:02x}" for index, name in enumerate(names)}
    shapes = "".join(
        surface.svg.replace("{0}", numbers[getattr(surface, by)]) if surface.part else surface.svg
        for surface in canvas.surfaces
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
    ground = f'<rect width="{width}" height="{height}" fill="#000000"/>'
    return rasterize(f"{head}{ground}{shapes}</svg>", width, height, crisp=True)[..., 2].copy()


def segmentation(scene: Scene, size: Size = 64) -> np.ndarray:
    """Say which part each pixel shows; (H, W) uint8, positions in `PARTS`, 0 where the background is."""
    return label_map(compose(scene, size, annotate=True), PARTS, size)


def part_mask(parts: np.ndarray, *names: str) -> np.ndarray:
    """Pick parts out of a segmentation.

    Args:
        parts: (H, W) from `segmentation`.
        *names: Names out of `PARTS`.

    Returns:
        (H, W) bool, true where one of the parts is seen.
    """
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        raise ValueError(f"unknown part {', '.join(unknown)}; expected some of {', '.join(sorted(PARTS))}")
    return np.isin(parts, [PARTS.index(name) for name in names])


def garment_mask(scene: Scene, size: Size = 64) -> np.ndarray:
    """Say where the upper garment (or the dress) is seen; (H, W) bool."""
    return part_mask(segmentation(scene, size), "upper garment")


def face_mask(scene: Scene, size: Size = 64) -> np.ndarray:
    """Say where the face is seen, with eyes, mouth, beard and glasses but without hair and ears; (H, W) bool."""
    return part_mask(segmentation(scene, size), *FACE)


def lip_mask(scene: Scene, size: Size = 64) -> np.ndarray:
    """Say where the mouth is seen; (H, W) bool."""
    return part_mask(segmentation(scene, size), "mouth")


def dense_map(scene: Scene, size: Size = 64) -> np.ndarray:
    """Say where on the body each pixel lies, whatever covers it there: clothes and hair belong to what is under them.

    Returns:
        (H, W, 3) uint8 as DensePose writes it: I, the part of 1..24 (0 background), then U and V in 0..255. Trunk and
        limbs have their front (U from 64 to 191) and their back as different parts. U runs around the part, 128 in
        front; V runs along it, from neck, shoulder or hip to its end, on the head from top to chin.
    """
    canvas = compose(scene, size, annotate=True)
    bodies = label_map(canvas, _BODIES, size, by="body")
    figure, matrix = Figure.of(scene), view_matrix(scene, size)
    result = np.zeros((*bodies.shape, 3), dtype=np.uint8)
    inverse = np.linalg.inv(matrix[:, :2])
    for index, body in enumerate(_BODIES[1:], start=1):
        rows, columns = np.nonzero(bodies == index)
        if not len(rows):
            continue
        points = (np.stack((columns, rows)) + 0.5 - matrix[:, 2:]).T @ inverse.T  # (pixels, 2), units
        around, along = _head_surface(figure, points) if body == "head" else _limb_surface(figure, body, points)
        front, back = _DENSE[body]
        if body == "head":
            part = np.where(around < 0, front, back)  # right half, left half
        else:
            part = np.where(np.abs(around) <= 90, front, back)
        result[rows, columns] = np.stack((part, np.rint((around / 360 + 0.5) * 255), np.rint(along * 255)), axis=1)
    return result


def _wrapped(degrees: np.ndarray) -> np.ndarray:
    return (degrees + 180) % 360 - 180


def _limb_surface(figure: Figure, body: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give longitude (degrees, 0 forwards) around a trunk or limb and share of its length for points (pixels, 2)."""
    if body == "torso":
        start, end = np.array(figure.at("neck")), np.array(figure.at("hip"))
        half = half_width(figure, figure.body.shoulder + 2.3)
    else:
        side, _, limb = body.partition(" ")
        start, end = (np.array(figure.at(f"{side} {joint}")) for joint in _BONES[limb])
        half = (figure.body.leg_width if limb.endswith(("leg", "foot")) else figure.body.arm_width) / 2 + 1.25
    length = max(float(np.hypot(*(end - start))), 1e-3)
    axis = (end - start) / length
    offset = points - start
    along = np.clip(offset @ axis / length, 0, 1)
    across = np.clip(offset @ np.array((axis[1], -axis[0])) / half, -1, 1)
    return _wrapped(np.degrees(np.arcsin(across)) - figure.scene.pose.yaw), along


def _head_surface(figure: Figure, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give longitude from the nose and share of the way from top to chin for points (pixels, 2) on the head."""
    tilt = math.radians(figure.scene.pose.head_tilt + figure.scene.pose.sway)
    dx, dy = (points - np.array(figure.at("head")) - (0, 12)).T
    x = (dx * math.cos(tilt) + dy * math.sin(tilt)) / (RX * 1.3)
    y = (-dx * math.sin(tilt) + dy * math.cos(tilt) + 12) / (RY * 1.3)
    y = np.clip(y, -1, 1)
    ring = np.sqrt(np.maximum(1 - y * y, 1e-6))
    return _wrapped(np.degrees(np.arcsin(np.clip(x / ring, -1, 1))) - figure.head.ball.yaw), y / 2 + 0.5


# Nine knots of matplotlib's viridis, in which DensePose results are usually drawn.
_VIRIDIS = np.array(
    (
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ),
    dtype=np.float64,
)


def dense_picture(dense: np.ndarray) -> np.ndarray:
    """Draw a dense map, (H, W, 3) from `dense_map`, as the field draws it: parts in viridis; (H, W, 3) uint8."""
    knots = np.linspace(0, 24, len(_VIRIDIS))
    table = np.stack([np.interp(np.arange(25), knots, channel) for channel in _VIRIDIS.T], axis=1)
    return np.rint(table).astype(np.uint8)[dense[..., 0]]


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Grow a mask (H, W) by a number of pixels in every direction (a square neighbourhood)."""
    result = mask.copy()
    for axis in (0, 1):
        summed = np.cumsum(np.pad(result, [(pixels + 1, pixels) if a == axis else (0, 0) for a in (0, 1)]), axis=axis)
        length = result.shape[axis]
        high = np.take(summed, np.arange(2 * pixels + 1, 2 * pixels + 1 + length), axis=axis)
        result = high - np.take(summed, np.arange(length), axis=axis) > 0
    return result
