"""Faces of a driving film carried over to a portrait: AniPortrait's re-enactment (`vid2vid`), without an estimator.

A track is what MediaPipe's face landmarker gives of each frame: metric vertices without head pose, the matrix from
canonical to camera space, and blendshape scores. The driver's expression is taken relative to its most neutral frame,
its head's movement relative to its first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from referencenet.inputs import read_arrays, read_json
from referencenet.media.images import MAX_PIXELS, Picture, read_image
from referencenet.preprocess.face_geometry import pose_matrices, poses_of, projected, smoothed
from referencenet.preprocess.face_mesh import NUM_LANDMARKS, FaceMeshFilm, checked_landmarks, checked_rate

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

    @property
    def neutral(self) -> int:
        """The frame of least expression."""
        return 0 if self.blendshapes is None else int(self.blendshapes.sum(axis=1).argmin())


def read_track(path: str | Path) -> FaceTrack:
    """Read a track from an npz or JSON file whose keys are the fields of `FaceTrack`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind, lacks a field, or claims an enormous size.
    """
    what = "a face track: npz or JSON with vertices, matrices, width, height and perhaps blendshapes and rate"
    found: Any = read_json(path, what) if Path(path).suffix.lower() == ".json" else read_arrays(path, what)
    try:
        arrays = {name: np.asarray(found[name], dtype=np.float64) for name in ("vertices", "matrices")}
        if found.get("blendshapes") is not None:
            arrays["blendshapes"] = np.asarray(found["blendshapes"], dtype=np.float64)
        size = {name: int(found[name]) for name in ("width", "height")}
        rate = checked_rate(float(found.get("rate", 30)))
    except KeyError as error:
        raise ValueError(f"{path} is no face track (it has no {error}); expected {what}.") from error
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is no face track ({error}); expected {what}.") from error
    if min(size.values()) < 1 or size["width"] * size["height"] > MAX_PIXELS:
        raise ValueError(f"{path} is of pictures of {size['width']} x {size['height']} pixels; at most "
                         f"{MAX_PIXELS // 10**6} million are read.")  # fmt: skip
    return FaceTrack(**arrays, **size, rate=rate)


def reenacted(driving: FaceTrack, portrait: FaceTrack, *, width: int = 512, height: int = 512) -> FaceMeshFilm:
    """Drawings of the portrait's face, moved as the driver's.

    Args:
        driving: The driver's film; projected with its own size, as published.
        portrait: The portrait, one frame.
        width: Of the drawings in pixels.
        height: Likewise.

    Returns:
        As many drawings as the driver has frames.
    """
    poses = poses_of(driving.matrices)
    poses[:, 3:] += poses_of(portrait.matrices[0])[3:] - poses[0, 3:]
    vertices = driving.vertices - driving.vertices[driving.neutral] + portrait.vertices[0]
    pixels = projected(vertices, pose_matrices(smoothed(poses, SMOOTHING)), driving.width, driving.height)
    return FaceMeshFilm(
        pixels / np.array([driving.width, driving.height]), width=width, height=height, rate=driving.rate
    )


def crop_portrait(picture: Picture, landmarks: np.ndarray) -> Image.Image:
    """A square of a portrait, as the published program cuts it before anything else.

    Around the face, black beyond the picture, where the face covers less than 15 % of it; else the middle.

    Args:
        picture: The portrait.
        landmarks: Of its face, (468 or 478, 2 or 3), as fractions of the picture.
    """
    portrait = read_image(picture)
    face = checked_landmarks(landmarks)[:, :2]
    low, high = face.min(axis=0), face.max(axis=0)
    size = np.array(portrait.size)
    if np.prod(high - low) < SMALL_FACE:
        side = round(MARGIN * float(((high - low) * size).max()))
        middle = (low + high) / 2 * size
    else:
        side, middle = min(portrait.size), size / 2
    left, top = (round(float(each) - side / 2) for each in middle)
    return portrait.crop((left, top, left + side, top + side))
