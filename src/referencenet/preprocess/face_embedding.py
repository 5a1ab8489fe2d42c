"""The 512 numbers by which a face is known: InsightFace's recogniser glintr100, run by onnxruntime.

The face is turned and scaled so that eyes, nose and corners of the mouth come to ArcFace's five places in a picture of
112 x 112 (Deng et al. 2019, arXiv 1801.07698; insightface, face_align.py). The published programs take those five
points from SCRFD, here they come from MediaPipe's landmarks, so that numbers differ a little. No network is part of
this package: `glintr100.onnx` is the user's to get, and its licence allows research only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from referencenet.inputs import read_array
from referencenet.later import later
from referencenet.media.images import Picture, read_image
from referencenet.preprocess.face_mesh import checked_landmarks
from referencenet.preprocess.mediapipe import IBUG
from referencenet.preprocess.model_files import GLINTR, model_file
from referencenet.preprocess.procrustes import similarity

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    (torch,) = later("torch")

EMBEDDING = 512
"""Numbers of InsightFace's recognisers."""

SIDE = 112
FIVE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Where eyes, nose and corners of the mouth lie, x and y, from the picture's left; published with ArcFace."""

LEFT_EYE, RIGHT_EYE, NOSE, MOUTH = IBUG[36:42], IBUG[42:48], IBUG[30], (IBUG[48], IBUG[54])
"""Landmarks around the eye on the picture's left and on its right, of the nose's tip and of the mouth's corners."""

MIDDLE, SCALE = 127.5, 127.5  # of the network's range


def five_points(landmarks: Any) -> np.ndarray:
    """Middles of the eyes, tip of the nose and corners of the mouth, (5, 2), of landmarks (468 or 478, 2 or 3)."""
    points = checked_landmarks(landmarks)[:, :2]
    eyes = [points[list(eye)].mean(axis=0) for eye in (LEFT_EYE, RIGHT_EYE)]
    return np.stack([*eyes, points[NOSE], *points[list(MOUTH)]])


def align_face(picture: Picture, points: np.ndarray) -> np.ndarray:
    """A face as ArcFace's networks see it.

    Args:
        picture: As `read_image` takes it.
        points: (5, 2) in its pixels, of `five_points`.

    Returns:
        (112, 112, 3) RGB, uint8; black beyond the border.

    Raises:
        ImportError: If OpenCV is missing.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError("aligning a face needs OpenCV: pip install 'referencenet[preprocess]'.") from error
    matrix = similarity(points, np.array(FIVE))[:2]
    return cv2.warpAffine(np.asarray(read_image(picture)), matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)


class FaceEmbedder:
    """Knows faces by 512 numbers, which are not normalised.

    Args:
        folder: Holds `glintr100.onnx`; or an .onnx file of the same interface.

    Raises:
        FileNotFoundError: If it is missing; says where to get it.
        ValueError: If it is no such network.
        ImportError: If onnxruntime is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        file = model_file(folder, GLINTR)
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                f"{file} needs onnxruntime: pip install 'referencenet[preprocess]', or give 512 numbers in an npy."
            ) from error
        options: Any = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        try:
            self.network: Any = onnxruntime.InferenceSession(
                str(file), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common class but this one
            raise ValueError(
                f"onnxruntime cannot read {file} ({' '.join(str(error).split())[:200]}); get the file again."
            ) from error
        given, answers = self.network.get_inputs(), self.network.get_outputs()
        shapes = [each.shape for each in (*given, *answers)]
        if len(shapes) != 2 or list(shapes[0][1:]) != [3, SIDE, SIDE] or list(shapes[1][-1:]) != [EMBEDDING]:
            raise ValueError(
                f"{file} takes and gives {shapes}; expected a picture (1, 3, {SIDE}, {SIDE}) and {EMBEDDING} numbers: "
                "it is another network."
            )
        self._input = given[0].name

    def __call__(self, picture: Picture, landmarks: Any) -> np.ndarray:
        """Know a face.

        Args:
            picture: As `read_image` takes it.
            landmarks: Of the face, (468 or 478, 2 or 3) in the picture's pixels.

        Returns:
            (512,) float32, not normalised.
        """
        face = align_face(picture, five_points(landmarks)).astype(np.float32)
        values = ((face - MIDDLE) / SCALE).transpose(2, 0, 1)[None]  # (1, 3, 112, 112)
        return self.network.run(None, {self._input: np.ascontiguousarray(values)})[0].reshape(EMBEDDING)


def read_face_embedding(source: Any, picture: Picture | None = None, landmarks: Any = None) -> Tensor:
    """The numbers of a face, as they are or by a network.

    Args:
        source: 512 numbers, an .npy file of them, an .onnx file such as glintr100.onnx or a folder that holds it; None:
            zeros, as published where no face is recognised.
        picture: The portrait, where a network is given.
        landmarks: Of its face, (468 or 478, 2 or 3) in its pixels, where a network is given.

    Returns:
        (1, 512), float32, not normalised.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there are other numbers, they are not finite, or a network has no face to look at.
        ImportError: If onnxruntime or OpenCV is missing.
    """
    if source is None:
        return torch.zeros(1, EMBEDDING)
    path = Path(source) if isinstance(source, str | Path) else None
    if path is not None and (path.suffix == ".onnx" or path.is_dir()):
        if picture is None or landmarks is None:
            raise ValueError(f"{path} knows faces, but none was given: give the portrait and its face's landmarks.")
        values = FaceEmbedder(path)(picture, landmarks)
    elif path is not None:
        values = read_array(path, f"the {EMBEDDING} numbers of a face by glintr100")
    else:
        values = source.detach().cpu().numpy() if isinstance(source, torch.Tensor) else np.asarray(source)
    if values.size != EMBEDDING or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{path or 'the face'} is {values.dtype} of shape {values.shape}; "
            f"expected {EMBEDDING} numbers of glintr100."
        )
    with np.errstate(over="ignore"):  # which is told
        found = torch.from_numpy(values.astype(np.float32).reshape(1, EMBEDDING))
    if not bool(torch.isfinite(found).all()):
        raise ValueError(f"{path or 'the embedding of the face'} holds values that are not finite; give numbers.")
    return found
