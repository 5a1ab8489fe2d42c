"""Estimators of faces and body key points: networks in a folder of the user's, run by OpenCV.

Faces: YuNet through OpenCV's own class (FlashFace's program uses RetinaFace, with these thresholds and this padding).
Bodies: DWPose as Animate Anyone's poses were made: YOLOX finds people, a SimCC network 133 points of each. No file is
part of this package and none is downloaded. Letters: n people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from referencenet.media.images import Picture, read_image
from referencenet.preprocess.body import SEEN, BodyPoints, only_person
from referencenet.preprocess.faces import Face
from referencenet.preprocess.model_files import SIMCC, YOLOX, YUNET, model_file

FACE_SIDE, FACE_SCORE, FACE_OVERLAP = 640, 0.6, 0.4  # as FlashFace's program detects
PEOPLE_SIDE, PEOPLE_SCORE, PEOPLE_OVERLAP, GREY = 640, 0.3, 0.45, 114  # as DWPose's program detects
POINTS_SIZE, MARGIN = (288, 384), 1.25
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, in RGB

COCO = (0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""Where OpenPose's 18 points stand among COCO's 17; the neck is between the shoulders."""

FACE_POINTS, LEFT_HAND, RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)  # of COCO-WholeBody's 133

BodyEstimator = Callable[[Image.Image], Sequence[BodyPoints]]
"""Finds the people of an RGB picture, the clearest first."""


class YuNet:
    """Finds faces; a detector for `find_face`.

    Args:
        folder: Holds `face_detection_yunet_2023mar.onnx`; or the file itself.

    Raises:
        FileNotFoundError: If the file is missing; says where to get it.
        ValueError: If OpenCV cannot read it.
        ImportError: If OpenCV is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        file = model_file(folder, YUNET)
        size = (FACE_SIDE, FACE_SIDE)
        self.network = _read(file, lambda cv2: cv2.FaceDetectorYN.create(str(file), "", size, FACE_SCORE, FACE_OVERLAP))

    def __call__(self, picture: Picture) -> list[Face]:
        """The faces of a picture, the clearest first, in its pixels."""
        image = read_image(picture)
        square, scale, left, top = _padded(image, FACE_SIDE)
        _, found = self.network.detect(np.ascontiguousarray(square[:, :, ::-1]))
        rows = [] if found is None else sorted(found.tolist(), key=lambda row: -row[14])
        faces: list[Face] = []
        for row in rows:
            xs = [(x - left) / scale for x in (row[0], row[0] + row[2], *row[4:8:2])]
            ys = [(y - top) / scale for y in (row[1], row[1] + row[3], *row[5:8:2])]
            eyes = sorted(zip(xs[2:], ys[2:], strict=True))
            faces.append(Face(box=(xs[0], ys[0], xs[1], ys[1]), left_eye=eyes[0], right_eye=eyes[1]))
        return faces


class DWPose:
    """Finds people and their body, hand and face points.

    Args:
        folder: Holds `yolox_l.onnx` and `dw-ll_ucoco_384.onnx`.

    Raises:
        FileNotFoundError: If a file is missing; says where to get it.
        ValueError: If OpenCV cannot read one.
        ImportError: If OpenCV is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        files = [model_file(folder, name) for name in (YOLOX, SIMCC)]
        self.people, self.points = (
            _read(file, lambda cv2, file=file: cv2.dnn.readNetFromONNX(str(file))) for file in files
        )

    def __call__(self, picture: Picture) -> list[BodyPoints]:
        """The people of a picture, in its pixels, the one with the best mean score of the body first."""
        image = read_image(picture)
        found = [self._points_in(image, box) for box in self.boxes(image)]
        return sorted(found, key=lambda person: -float(person.body[:, 2].mean()))

    def boxes(self, image: Image.Image) -> np.ndarray:
        """Where people are: (n, 4) of left, top, right, bottom in pixels."""
        scale = PEOPLE_SIDE / max(image.size)
        width, height = (int(side * scale) for side in image.size)
        canvas = np.full((PEOPLE_SIDE, PEOPLE_SIDE, 3), GREY, dtype=np.float32)
        small = image.resize((width, height), Image.Resampling.BILINEAR)
        canvas[:height, :width] = np.asarray(small, dtype=np.float32)[:, :, ::-1]
        (rows,) = _forward(self.people, canvas, YOLOX)
        return _decoded(rows[0]) / scale

    def _points_in(self, image: Image.Image, box: np.ndarray) -> BodyPoints:
        """The points of the person in a box."""
        width, height = POINTS_SIZE
        center = (box[:2] + box[2:]) / 2
        side = max((box[2] - box[0]) / width, (box[3] - box[1]) / height) * MARGIN  # picture's pixels per network's
        corner = center - (side * width / 2, side * height / 2)
        crop = image.transform(
            POINTS_SIZE, Image.Transform.AFFINE, (side, 0, corner[0], 0, side, corner[1]), Image.Resampling.BILINEAR
        )
        pixels = (np.asarray(crop, dtype=np.float32) - np.float32(MEAN)) / np.float32(DEVIATION)
        rows, columns = sorted(_forward(self.points, pixels, SIMCC), key=lambda scores: -scores.shape[-1])
        points = _located(columns[0], rows[0])
        points[:, :2] = points[:, :2] * side + corner
        return _openpose(points)


def film_points(frames: Sequence[Picture], estimator: BodyEstimator, *, several: bool = False) -> list[BodyPoints]:
    """The key points of a film's one person.

    Args:
        frames: Pictures.
        estimator: Finds people.
        several: Where several are seen, take the clearest, as the published code does, instead of refusing.

    Raises:
        ValueError: If a frame shows nobody, or without `several` more than one.
    """
    found: list[BodyPoints] = []
    for i, frame in enumerate(frames):
        people = estimator(read_image(frame))
        found.append(only_person(people[:1] if several else people, f"frame {i}"))
    return found


def _forward(network: Any, pixels: np.ndarray, name: str) -> Sequence[np.ndarray]:
    """What a network makes of a picture (height, width, 3)."""
    try:
        network.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        return network.forward(network.getUnconnectedOutLayersNames())
    except _opencv().error as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{name} does not take {pixels.shape} ({reason}); it is another network.") from error


def _decoded(rows: np.ndarray) -> np.ndarray:
    """YOLOX's (cells, 5 + classes) as people's boxes (n, 4) in its pixels."""
    grids = [(PEOPLE_SIDE // stride, stride) for stride in (8, 16, 32)]
    cells = np.concatenate([np.stack(np.meshgrid(*(np.arange(n),) * 2), -1).reshape(-1, 2) for n, _ in grids])
    strides = np.concatenate([np.full((n * n, 1), stride) for n, stride in grids])
    if rows.shape[0] != len(cells) or rows.shape[1] < 6:
        raise ValueError(
            f"{YOLOX} gave {rows.shape}; expected ({len(cells)}, 85): it is not YOLOX for {PEOPLE_SIDE} pixels."
        )
    centers, sides = (rows[:, :2] + cells) * strides, np.exp(rows[:, 2:4]) * strides
    scores = rows[:, 4] * rows[:, 5]  # class 0 is a person
    is_person = (scores > PEOPLE_SCORE) & (rows[:, 5:].argmax(axis=1) == 0)
    boxes = np.hstack([centers - sides / 2, sides])[is_person]
    if not len(boxes):
        return boxes
    kept = _opencv().dnn.NMSBoxes(boxes.tolist(), scores[is_person].tolist(), PEOPLE_SCORE, PEOPLE_OVERLAP)
    chosen = boxes[np.asarray(kept, dtype=int).reshape(-1)]
    return np.hstack([chosen[:, :2], chosen[:, :2] + chosen[:, 2:]])


def _located(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """SimCC's scores per column (133, 576) and row (133, 768) as points (133, 3) in the network's pixels."""
    if columns.shape[0] != 133 or rows.shape[0] != 133:
        raise ValueError(
            f"{SIMCC} gave {columns.shape} and {rows.shape}; expected (133, 576) and (133, 768): it is not "
            "DWPose's network for whole bodies."
        )
    x, y = columns.argmax(axis=1), rows.argmax(axis=1)
    scores = np.minimum(columns.max(axis=1), rows.max(axis=1)).clip(min=0)
    return np.stack([x / 2, y / 2, scores], axis=1).astype(np.float64)  # two bins per pixel


def _openpose(points: np.ndarray) -> BodyPoints:
    """COCO-WholeBody's (133, 3) in OpenPose's order."""
    shoulders = points[5:7]
    neck = shoulders.mean(axis=0)
    neck[2] = shoulders[:, 2].min() if bool((shoulders[:, 2] > SEEN).all()) else 0.0
    body = np.stack([neck if place < 0 else points[place] for place in COCO])
    return BodyPoints(body=body, left_hand=points[LEFT_HAND], right_hand=points[RIGHT_HAND], face=points[FACE_POINTS])


def _padded(image: Image.Image, side: int) -> tuple[np.ndarray, float, int, int]:
    """A picture in the middle of a black square: RGB (side, side, 3), its scale, its left and top."""
    scale = side / max(image.size)
    width, height = (max(1, math.floor(scale * length)) for length in image.size)
    square = Image.new("RGB", (side, side))
    left, top = (side - width) // 2, (side - height) // 2
    square.paste(image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    return np.array(square), scale, left, top


def _read(file: Path, read: Callable[[Any], Any]) -> Any:
    """A network that OpenCV reads."""
    cv2 = _opencv()
    try:
        return read(cv2)
    except cv2.error as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"OpenCV cannot read {file} ({reason}); get the file again.") from error


def _opencv() -> Any:
    """OpenCV, loaded when it is needed."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "estimators need OpenCV: pip install 'referencenet[preprocess]', or give ready key points and boxes."
        ) from error
    return cv2
