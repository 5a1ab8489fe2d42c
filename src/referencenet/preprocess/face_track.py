"""Faces of a driving film carried over to a portrait: AniPortrait's re-enactment (`vid2vid`).

A track is what MediaPipe's face landmarker gives of each frame: metric vertices without head pose, the matrix from
canonical to camera space, and blendshape scores. The driver's expression is taken relative to its most neutral frame,
its head's place relative to its first one; how its head is turned is the portrait's.
Published and done otherwise: faces are projected with the driver's proportions, so that they are squeezed where the
portrait has others; here with the portrait's, which is the same where both are equal, as in all published examples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from referencenet.inputs import as_numbers, read_arrays, read_json
from referencenet.media.films import frame_rate
from referencenet.media.images import Picture, read_image
from referencenet.preprocess.face_geometry import pose_matrices, poses_of, projected, smoothed
from referencenet.preprocess.face_landmarker import FaceReading
from referencenet.preprocess.face_mesh import NUM_LANDMARKS, FaceMeshFilm, checked_landmarks, within_reach

FIELDS = ("vertices", "matrices", "width", "height", "blendshapes", "rate")
"""What a file of a track holds; the film's size, blendshapes and rate may be missing."""

MAX_SIDE = 16384  # pixels of the film that was tracked

SMALLEST_TURN = 1e-6  # determinant of a head's rotation and scale, which is about 1

ARRAYS = ("vertices", "matrices", "blendshapes")
PUBLISHED = {"lmks3d": "vertices", "trans_mat": "matrices", "scores": "blendshapes", "bs": "blendshapes"}
"""Names of the published program for them."""

SMOOTHING = 3  # frames, as published
SMALL_FACE = 0.15  # share of the picture below which a portrait is cropped to its face, as published
MARGIN = 1.5  # side of the crop over the larger side of the face, as published


@dataclass(frozen=True, kw_only=True)
class FaceTrack:
    """A face through a film, or in a picture of one frame.

    Attributes:
        vertices: Metric, without head pose, (frames, 468, 3).
        matrices: Canonical to camera, (frames, 4, 4).
        blendshapes: Scores (frames, scores); None: the first frame counts as the most neutral.
        width: Of the film in pixels.
        height: Likewise.
        rate: Frames per second.
    """

    vertices: np.ndarray
    matrices: np.ndarray
    blendshapes: np.ndarray | None = None
    width: int = 512
    height: int = 512
    rate: Fraction = Fraction(30)

    def __post_init__(self) -> None:
        shapes = self.vertices.shape, self.matrices.shape
        frames = len(self.vertices)
        if not frames or shapes != ((frames, NUM_LANDMARKS, 3), (frames, 4, 4)):
            raise ValueError(
                f"vertices and matrices have shapes {shapes[0]} and {shapes[1]}; expected (frames, {NUM_LANDMARKS}, 3) "
                "and (frames, 4, 4), of one frame at least."
            )
        if self.blendshapes is not None and (self.blendshapes.ndim != 2 or len(self.blendshapes) != frames):
            raise ValueError(f"blendshapes have shape {self.blendshapes.shape}; expected ({frames}, scores).")
        values = (self.vertices, self.matrices, *(() if self.blendshapes is None else (self.blendshapes,)))
        if not all(np.isfinite(value).all() for value in values):
            raise ValueError("the track holds NaN or infinite values; end it before the first frame without a face.")

        if float(np.abs(np.linalg.det(self.matrices[:, :3, :3])).min()) < SMALLEST_TURN:
            raise ValueError("a matrix of the track is singular, of no head; leave out frames without a face.")

    @property
    def neutral(self) -> int:
        """The frame of least expression."""
        return 0 if self.blendshapes is None else int(self.blendshapes.sum(axis=1).argmin())

    @classmethod
    def of(cls, readings: Iterable[FaceReading], size: tuple[int, int], rate: Fraction = Fraction(30)) -> FaceTrack:
        """A track of what was read of each frame.

        Args:
            readings: At least one; read once.
            size: Width and height of the film.
            rate: Frames per second.
        """
        rows = [(each.vertices, each.matrix, each.scores) for each in readings]
        arrays = map(np.stack, zip(*rows, strict=True))
        return cls(**dict(zip(ARRAYS, arrays, strict=True)), width=size[0], height=size[1], rate=rate)

    def document(self) -> dict[str, np.ndarray]:
        """Arrays by name, as an npz holds them and `read_track` reads them."""
        numbers = {"width": self.width, "height": self.height, "rate": float(self.rate)}
        arrays = {name: getattr(self, name) for name in ARRAYS if getattr(self, name) is not None}
        return arrays | {name: np.array(value) for name, value in numbers.items()}


def read_track(path: str | Path) -> FaceTrack:
    """Read a track from an npz or JSON file.

    Its keys are the fields of `FaceTrack`, as `refnet preprocess --to face-track` writes them, or those of the
    published program: `lmks3d` (frames, 468, 3), `trans_mat` (frames, 4, 4) and perhaps `scores` or `bs`; of one
    picture without frames. Without width and height the film is taken for a square.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind or lacks a field.
    """
    path = Path(path)
    expected = (
        "a face track: vertices, matrices, perhaps width and height, blendshapes, rate; or lmks3d, trans_mat, scores"
    )
    names = (*FIELDS, *PUBLISHED)
    found: Any = read_json(path, expected) if path.suffix == ".json" else read_arrays(path, expected, names)
    given = found if isinstance(found, dict) else {}
    there = {PUBLISHED.get(name, name) for name, value in given.items() if value is not None}
    if missing := [name for name in FIELDS[:2] if name not in there]:
        raise ValueError(f"{path} is not a face track: it lacks {', '.join(missing)}; expected {expected}.")
    try:
        given = {PUBLISHED.get(name, name): value for name, value in given.items()}
        given = {name: as_numbers(given[name], f"{name} of {path}") for name in FIELDS if given.get(name) is not None}
        arrays = {name: given[name] for name in ARRAYS if name in given}
        if arrays["vertices"].ndim == 2:  # of a picture
            arrays = {name: value[None] for name, value in arrays.items()}
        size = {name: float(given[name]) for name in ("width", "height") if name in given}
        if len(size) == 1:
            raise ValueError(f"it has {next(iter(size))} alone of width and height")
        if not all(1 <= side <= MAX_SIDE and side.is_integer() for side in size.values()):
            raise ValueError(f"a film of {' x '.join(f'{side:g}' for side in size.values())} pixels")
        rate = frame_rate(float(given.get("rate", 30.0)))
        return FaceTrack(**arrays, **{name: int(side) for name, side in size.items()}, rate=rate)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a face track ({error}); expected {expected}.") from error


def reenacted(driving: FaceTrack, portrait: FaceTrack, *, width: int = 512, height: int = 512) -> FaceMeshFilm:
    """Drawings of the portrait's face, moved as the driver's.

    Args:
        driving: The driver's film.
        portrait: The portrait, one frame; its proportions are the drawings' field of view.
        width: Of the drawings in pixels.
        height: Likewise.

    Returns:
        As many drawings as the driver has frames.
    """
    poses = poses_of(driving.matrices)
    poses[:, 3:] += poses_of(portrait.matrices[0])[3:] - poses[0, 3:]
    vertices = driving.vertices - driving.vertices[driving.neutral] + portrait.vertices[0]
    pixels = projected(vertices, pose_matrices(smoothed(poses, SMOOTHING)), portrait.width, portrait.height)
    places = pixels / np.array([portrait.width, portrait.height])
    return FaceMeshFilm(places, width=width, height=height, rate=driving.rate)


def crop_portrait(picture: Picture, landmarks: np.ndarray) -> Image.Image:
    """A square of a portrait, as the published program cuts it before anything else.

    Around the face, black beyond the picture, where the face covers less than 15 % of it; else the middle.

    Args:
        picture: The portrait.
        landmarks: Of its face, (468 or 478, 2 or 3), as fractions of the picture.
    """
    portrait = read_image(picture)
    face = within_reach(checked_landmarks(landmarks), "the portrait's landmarks")[:, :2]
    low, high = face.min(axis=0), face.max(axis=0)
    size = np.array(portrait.size)
    if np.prod(high - low) < SMALL_FACE:
        side = round(MARGIN * float(((high - low) * size).max()))
        middle = (low + high) / 2 * size
    else:
        side, middle = min(portrait.size), size / 2
    left, top = (round(float(each) - side / 2) for each in middle)
    return portrait.crop((left, top, left + side, top + side))
