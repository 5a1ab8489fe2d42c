"""Faces in space: metric mesh, head matrix and expression scores of each, as MediaPipe's face landmarker gives them.

With a `.task` bundle of the user's its own networks and canonical face are run. Without it the mesh of `FaceMesh` is
fitted to a canonical face of ours, and scores are measured on the mesh: both are approximations, and say so.
Not kept of MediaPipe's program: its tracking from frame to frame. As in its image mode every picture is looked at anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from referencenet.preprocess.detections import sigmoid
from referencenet.preprocess.face_mesh import NUM_LANDMARKS
from referencenet.preprocess.litert import LiteNetwork
from referencenet.preprocess.mediapipe import NEAR_LAYERS, NEAR_SCORE, PRESENT, FaceMesh, detected, face_region
from referencenet.preprocess.metric_face import APPROXIMATE, metric_face
from referencenet.preprocess.model_files import LANDMARKER
from referencenet.preprocess.regions import Region
from referencenet.preprocess.task_file import BLENDSHAPES, DETECTOR, LANDMARKS, read_task

NUM_WITH_IRISES = 478

APPROXIMATED = (
    f"without {LANDMARKER} in the folder of networks, meshes in space and head poses are approximate: some degrees off."
)

SCORED = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
    81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153,
    154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251,
    263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318,
    321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386,
    387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, *range(468, 478),
)  # fmt: skip
"""The landmarks that the network of blendshapes takes (mediapipe, face_blendshapes_graph.cc)."""

NUM_SCORES = 52  # the first is "neutral", which is left out
LIPS_APART, LIDS_APART, BROW, MOUTH = (13, 14), ((159, 145), (386, 374)), ((105, 159), (334, 386)), (61, 291)
OUTER_EYES = (33, 263)
MOUTH_OPEN, LIDS_OPEN, BROWS_LOW, BROWS_RAISED, MOUTH_AT_REST, MOUTH_MOVED = 0.5, 0.13, 0.22, 0.1, 0.55, 0.25
"""What ten photographs suggest, over the distance of the outer corners of the eyes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceReading:
    """A face in a picture and in space.

    Attributes:
        landmarks: (468 or 478, 3) in pixels.
        vertices: Metric, without head pose, (468, 3) in centimetres.
        matrix: Canonical to camera, (4, 4).
        scores: Of its expression, (51,) blendshapes, or (5,) measures of ours.
    """

    landmarks: np.ndarray
    vertices: np.ndarray
    matrix: np.ndarray
    scores: np.ndarray


class BundledMesh:
    """Finds faces, and 478 landmarks and the expression of each, by the networks of a `.task` bundle.

    Args:
        folder: Holds `face_landmarker_v2_with_blendshapes.task`; or the file itself.

    Attributes:
        basis: Of its canonical face.

    Raises:
        FileNotFoundError: If it is missing; says where to get it.
        ValueError: If it is another one.
        ImportError: If LiteRT is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        networks, self.basis = read_task(folder)
        self.detector = LiteNetwork(networks[DETECTOR], DETECTOR, (896 * 16, 896))
        self.network = LiteNetwork(networks[LANDMARKS], LANDMARKS, (3 * NUM_WITH_IRISES, 1))
        self.blendshapes = LiteNetwork(networks[BLENDSHAPES], BLENDSHAPES, (NUM_SCORES,))

    def regions(self, image: Image.Image) -> list[Region]:
        """Where faces are, the surest first."""
        frame = Region.whole(image.size)
        found = detected(self.detector, NEAR_LAYERS, NEAR_SCORE, image, frame)
        return [face_region(frame, each) for each in found]

    def read(self, image: Image.Image, region: Region) -> np.ndarray | None:
        """Landmarks of the face in a square, (478, 3) in pixels; None: it is no face."""
        values, presence = self.network(region.crop(image, self.network.side))
        if sigmoid(presence).item() < PRESENT:
            return None
        return region.points_of(values.reshape(NUM_WITH_IRISES, 3) / self.network.side)

    def scores(self, landmarks: np.ndarray) -> np.ndarray:
        """Blendshapes without "neutral", (51,), of landmarks (478, 3) in pixels."""
        return self.blendshapes(landmarks[list(SCORED), :2])[0][1:].astype(np.float64)


class FaceLandmarker:
    """Finds faces, and reads them in space.

    Args:
        folder: Holds `face_landmarker_v2_with_blendshapes.task`, or else the networks of `refnet models fetch`; or the
            `.task` file itself.

    Raises:
        FileNotFoundError: If neither is there; says how to get them.
        ValueError: If a file is another one.
        ImportError: If LiteRT is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder).expanduser()
        is_bundled = path.suffix == ".task" or (path / LANDMARKER).is_file()
        self.mesh = BundledMesh(path) if is_bundled else FaceMesh(path)

    @property
    def is_exact(self) -> bool:
        """Whether a `.task` bundle is run."""
        return isinstance(self.mesh, BundledMesh)

    def regions(self, image: Image.Image) -> list[Region]:
        """Where faces are, the surest first."""
        return self.mesh.regions(image)

    def read(self, image: Image.Image, region: Region) -> FaceReading | None:
        """The face in a square; None: it is none."""
        landmarks = self.mesh.read(image, region)
        if landmarks is None:
            return None
        if isinstance(self.mesh, BundledMesh):
            vertices, matrix = metric_face(landmarks, image.size, self.mesh.basis)
            scores = self.mesh.scores(landmarks)
        else:
            vertices, matrix = metric_face(landmarks, image.size, APPROXIMATE)
            scores = expression(vertices)
        return FaceReading(landmarks=landmarks, vertices=vertices, matrix=matrix, scores=scores)


def expression(vertices: np.ndarray) -> np.ndarray:
    """How far a face is from rest: an approximation, by distances on its mesh.

    Args:
        vertices: (..., 468, 3), without head pose.

    Returns:
        (..., 5), from 0 at rest to 1: mouth open, right and left eye closed, brows raised, mouth wide or narrow.
    """
    if vertices.shape[-2:] != (NUM_LANDMARKS, 3):
        raise ValueError(f"the vertices have shape {vertices.shape}; expected (..., {NUM_LANDMARKS}, 3).")

    def distance(pair: tuple[int, int]) -> np.ndarray:
        return np.linalg.norm(vertices[..., pair[0], :] - vertices[..., pair[1], :], axis=-1)

    def apart(pair: tuple[int, int]) -> np.ndarray:
        return distance(pair) / np.maximum(distance(OUTER_EYES), 1e-6)

    lids = [1 - apart(pair) / LIDS_OPEN for pair in LIDS_APART]
    brows = (sum(apart(pair) for pair in BROW) / 2 - BROWS_LOW) / BROWS_RAISED
    measures = [apart(LIPS_APART) / MOUTH_OPEN, *lids, brows, abs(apart(MOUTH) - MOUTH_AT_REST) / MOUTH_MOVED]
    return np.clip(np.stack(measures, axis=-1), 0, 1)
