"""A drawn head from any camera: nobody in particular, enough to tell from where it is seen.

For systems whose camera is a picture of somebody else, and as a rough picture of the person, in the portrait's colours.
The head is a dozen shaded ellipsoids, traced pixel by pixel with numpy. The camera stands as EG3D's does for faces: it
looks at the head from as far away as its field of view needs to show head and shoulders. Weights that were trained with
rendered people have never seen such a head. Letters: (h, w) pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
from PIL import Image, ImageOps

from referencenet.media.images import Picture, read_image

FIELD_OF_VIEW = 18.84  # degrees, of EG3D's camera for faces
HALF_WIDTH = 1.3  # of what is seen at the head's middle; the head is 2.1 high
MIDDLE = np.array([0, -0.05, 0], dtype=np.float32)  # at which the camera looks
FINER = 2  # pixels are traced so many times finer, and averaged
LIGHT = np.array(
    [-0.35, 0.6, 0.72], dtype=np.float32
)  # from above, the person's right and before; it stays with the head

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class HeadCamera:
    """From where the head is seen, in degrees.

    Attributes:
        yaw: Positive: the face looks to the right of the picture, from -180 to 180.
        pitch: Positive: the face looks up, from -90 to 90.
        roll: Positive: the head leans to the right of the picture, from -180 to 180.
        field_of_view: Of the whole picture, its shorter side; the head keeps its size, and its perspective changes.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    field_of_view: float = FIELD_OF_VIEW

    def __post_init__(self) -> None:
        """Raises ValueError if an angle is out of its range."""
        for name, least, most in (
            ("yaw", -180, 180),
            ("pitch", -90, 90),
            ("roll", -180, 180),
            ("field_of_view", 1, 100),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and least <= value <= most):
                raise ValueError(f"{name} is {value}; expected degrees from {least} to {most}.")

    def rotation(self) -> np.ndarray:
        """From the head's axes (right of the picture, up, toward the viewer) to the camera's, (3, 3)."""
        yaw, pitch, roll = np.radians([self.yaw, -self.pitch, -self.roll])
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        lean = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        return (lean @ nod @ turn).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class HeadColours:
    """Colours of the parts, RGB."""

    skin: Colour = (214, 170, 146)
    hair: Colour = (70, 50, 40)
    cloth: Colour = (74, 88, 110)
    backdrop: Colour = (176, 178, 182)

    @classmethod
    def of(cls, portrait: Picture) -> HeadColours:
        """Those of a portrait framed as the drawn head is, or of its middle: medians of where its parts are."""
        pixels = np.asarray(ImageOps.fit(read_image(portrait), (64, 64)))
        places = {
            "skin": pixels[32:44, 24:40],
            "hair": pixels[6:11, 26:38],
            "cloth": np.concatenate([pixels[61:, 12:22], pixels[61:, -22:-12]]),
            "backdrop": np.concatenate([pixels[:10, :8], pixels[:10, -8:]]),
        }
        return cls(**{name: tuple(int(v) for v in np.median(p.reshape(-1, 3), axis=0)) for name, p in places.items()})  # pyright: ignore


@dataclass(frozen=True)
class Ellipsoid:
    """A part of the head.

    Attributes:
        centre: In the head's axes.
        radii: Along them.
        paint: Name of its colour.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    paint: str


def _pair(x: float, y: float, z: float, radii: tuple[float, float, float], paint: str) -> list[Ellipsoid]:
    """A part on either side."""
    return [Ellipsoid((side * x, y, z), radii, paint) for side in (-1, 1)]


PARTS: Sequence[Ellipsoid] = (
    Ellipsoid((0, -1.95, -0.35), (1.8, 0.85, 0.7), "cloth"),
    Ellipsoid((0, -1.1, -0.22), (0.4, 0.8, 0.4), "skin"),  # neck
    Ellipsoid((0, -0.12, 0.05), (0.66, 0.95, 0.76), "skin"),  # face
    Ellipsoid((0, 0.18, -0.14), (0.76, 0.86, 0.86), "scalp"),
    Ellipsoid((0, -0.17, 0.8), (0.1, 0.26, 0.17), "skin"),  # nose
    Ellipsoid((0, -0.32, 0.86), (0.14, 0.1, 0.15), "skin"),
    *_pair(0.71, -0.04, -0.12, (0.09, 0.24, 0.16), "skin"),  # ears
    *_pair(0.26, 0.06, 0.62, (0.14, 0.11, 0.13), "eye"),
    *_pair(0.27, 0.26, 0.66, (0.17, 0.035, 0.1), "hair"),  # brows
    Ellipsoid((0, -0.56, 0.66), (0.22, 0.06, 0.11), "lips"),
    Ellipsoid((0, -0.86, 0.5), (0.26, 0.17, 0.24), "skin"),  # chin
)

IRIS = 0.8  # of an eye's depth, before which it is dark


def draw_head(
    camera: HeadCamera, size: tuple[int, int] = (512, 512), colours: HeadColours | None = None
) -> Image.Image:
    """Draw the head.

    Args:
        camera: From where.
        size: Width and height in pixels.
        colours: Of its parts; None: nobody's.

    Raises:
        ValueError: If the size has no pixel.
    """
    if min(size) < 1:
        raise ValueError(f"the size is {size[0]} x {size[1]}; expected at least one pixel.")
    colours = colours or HeadColours()
    origin, rays = _rays(camera, (size[0] * FINER, size[1] * FINER))
    picture = np.broadcast_to(np.array(colours.backdrop, dtype=np.float32), rays.shape).copy()
    nearest = np.full(rays.shape[:2], np.inf, dtype=np.float32)
    for part in PARTS:
        box = _box(part, camera, origin, (size[0] * FINER, size[1] * FINER))
        depth, point = _hit(part, origin, rays[box])
        is_nearer = depth < nearest[box]
        nearest[box][is_nearer] = depth[is_nearer]
        picture[box][is_nearer] = _shaded(part, point[is_nearer], colours)
    means = picture.reshape(size[1], FINER, size[0], FINER, 3).mean(axis=(1, 3))
    return Image.fromarray(means.round().astype(np.uint8))


def swing(
    num_views: int, *, yaw: tuple[float, float] = (0, 0), pitch: tuple[float, float] = (0, 0), roll: float = 0.0,
    field_of_view: float = FIELD_OF_VIEW,
) -> list[HeadCamera]:  # fmt: skip
    """Cameras at equal steps from the first angles to the last; one view stands in the middle.

    Args:
        num_views: From 1.
        yaw: First and last, in degrees.
        pitch: Likewise.
        roll: Of all.
        field_of_view: Of all.

    Raises:
        ValueError: If there is no view, or an angle is out of its range.
    """
    if num_views < 1:
        raise ValueError(f"{num_views} views were asked for; expected at least 1.")
    shares = np.linspace(0, 1, num_views) if num_views > 1 else np.array([0.5])
    common = HeadCamera(roll=roll, field_of_view=field_of_view)
    return [
        replace(common, yaw=_between(yaw, share), pitch=_between(pitch, share)) for share in map(float, shares)
    ]  # fmt: skip


@dataclass(frozen=True)
class HeadFilm:
    """The head from one camera after the other, drawn when it is read: a `FrameSource`.

    Attributes:
        cameras: One per frame.
        size: Width and height in pixels.
        colours: Of its parts; None: nobody's.
        rate: Frames per second.
    """

    cameras: Sequence[HeadCamera]
    size: tuple[int, int] = (512, 512)
    colours: HeadColours | None = None
    rate: Fraction = Fraction(10)

    def __len__(self) -> int:
        return len(self.cameras)

    def __iter__(self) -> Iterator[Image.Image]:
        """Pictures in order."""
        return iter(self.pictures)

    @cached_property
    def pictures(self) -> list[Image.Image]:
        """All pictures."""
        return [draw_head(camera, self.size, self.colours) for camera in self.cameras]


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share


def _rays(camera: HeadCamera, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The camera's place (3,) and a direction (h, w, 3) per pixel, in the head's axes."""
    width, height = size
    slope = math.tan(math.radians(camera.field_of_view / 2))
    scale = 2 * slope / min(size)
    columns, rows = np.meshgrid(np.arange(width) + 0.5 - width / 2, height / 2 - np.arange(height) - 0.5)
    rays = np.stack([columns * scale, rows * scale, -np.ones_like(rows)], axis=-1).astype(np.float32)
    back = camera.rotation()  # a row times it: from the camera's axes to the head's
    return MIDDLE + np.array([0, 0, HALF_WIDTH / slope], dtype=np.float32) @ back, rays @ back


def _box(part: Ellipsoid, camera: HeadCamera, origin: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns outside of which a part is not seen; all, where the camera is too near to tell."""
    x, y, z = camera.rotation() @ (np.array(part.centre, dtype=np.float32) - origin)
    far, reach = -z, max(part.radii)
    if far <= 2 * reach:
        return slice(None), slice(None)
    scale = min(size) / (2 * math.tan(math.radians(camera.field_of_view / 2)))
    around = 1.2 * reach / (far - reach) * scale
    column, row = size[0] / 2 + x / far * scale, size[1] / 2 - y / far * scale
    top, left = max(0, int(row - around)), max(0, int(column - around))
    return slice(top, max(0, int(row + around) + 2)), slice(left, max(0, int(column + around) + 2))


def _hit(part: Ellipsoid, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays (h, w, 3) meet a part first: depth (h, w), infinite where they miss, and the point (h, w, 3)."""
    radii = np.array(part.radii, dtype=np.float32)
    start, way = (origin - np.array(part.centre, dtype=np.float32)) / radii, rays / radii
    a, b = np.einsum("hwi,hwi->hw", way, way), way @ start
    root = b * b - a * (start @ start - 1)
    depth = (-b - np.sqrt(np.maximum(root, 0))) / a
    depth = np.where((root > 0) & (depth > 0), depth, np.float32(np.inf))
    return depth, origin + np.where(np.isfinite(depth), depth, 0)[..., None] * rays


def _shaded(part: Ellipsoid, points: np.ndarray, colours: HeadColours) -> np.ndarray:
    """Colours (points, 3) of a part at points (points, 3)."""
    radii = np.array(part.radii, dtype=np.float32)
    local = (points - np.array(part.centre, dtype=np.float32)) / radii
    normals = local / radii
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    light = 0.62 + 0.38 * np.clip(normals @ (LIGHT / np.linalg.norm(LIGHT)), -0.6, 1)
    return _painted(part, local, points, colours) * light[:, None]


def _painted(part: Ellipsoid, local: np.ndarray, points: np.ndarray, colours: HeadColours) -> np.ndarray:
    """Colours before shading, (points, 3)."""
    skin, hair = (np.array(colour, dtype=np.float32) for colour in (colours.skin, colours.hair))
    match part.paint:
        case "scalp":  # hair behind its line: over the forehead and before the ears
            is_hair = points[:, 1] - 0.9 * points[:, 2] > 0.12 - 0.25 * np.abs(points[:, 0])
            return np.where(is_hair[:, None], hair, skin)
        case "eye":
            return np.where((local[:, 2] > IRIS)[:, None], np.array([40.0, 36, 38]), np.array([240.0, 238, 234]))
        case "lips":
            return np.broadcast_to(skin * [0.78, 0.5, 0.5], points.shape)
        case _:
            return np.broadcast_to(np.array(getattr(colours, part.paint), dtype=np.float32), points.shape)
