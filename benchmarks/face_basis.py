"""The points of the canonical face that stands in for MediaPipe's: `APPROXIMATE` in preprocess/metric_face.py.

    python benchmarks/face_basis.py PICTURE ... [--models FOLDER] [--task FILE]

Reads every face of the pictures with the networks of `refnet models fetch`, aligns them by Procrustes analysis,
averages them, makes the mean symmetric and upright from chin to forehead, and gives it the size that stands in the
table. With MediaPipe's bundle (`--task`) poses by both canonical faces are compared. Made of the ten faces that can be
read in photographs which packages ship: scikit-image's astronaut, matplotlib's Grace Hopper, ultralytics' bus (2) and
two coaches (1), insightface's t1 (4) and Tom Hanks. TILT, SIZE and ORIGIN were then fitted to the poses of nine of them
by MediaPipe's published canonical face.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from referencenet.media.images import read_image
from referencenet.preprocess import FaceMesh
from referencenet.preprocess.face_geometry import poses_of
from referencenet.preprocess.metric_face import APPROXIMATE, MIDDLE, SIDES, metric_face
from referencenet.preprocess.model_files import default_folder
from referencenet.preprocess.procrustes import similarity
from referencenet.preprocess.task_file import read_task

ROUNDS = 100
CHIN, FOREHEAD, EYES = 152, 10, (33, 263)
TILT, SIZE, ORIGIN = 4.44, 9.70, (0, 2.69, 2.88)  # degrees; centimetres between the outer corners, and their middle


def main() -> None:
    """Print the table, and how far poses are from MediaPipe's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--models", type=Path, default=default_folder())
    parser.add_argument("--task", type=Path)
    given = parser.parse_args()
    mesh = FaceMesh(given.models)
    images = [read_image(path) for path in given.pictures]
    read = [(mesh.read(image, region), image.size) for image in images for region in mesh.regions(image)]
    faces = [(points, size) for points, size in read if points is not None]
    numbers = APPROXIMATE.landmarks.tolist()
    for number, place in zip(numbers, mean_face(np.stack([points for points, _ in faces])), strict=True):
        print(f"{number:4d}  {place[0]:6.2f} {place[1]:6.2f} {place[2]:6.2f}")
    print(f"{len(faces)} faces")
    if given.task is not None:
        _, basis = read_task(given.task)
        poses = [[poses_of(metric_face(*face, kind)[1]) for face in faces] for kind in (basis, APPROXIMATE)]
        apart = np.abs(np.subtract(*np.array(poses)))
        print("degrees and centimetres apart, median:", np.median(apart, axis=0).round(2))


def mean_face(faces: np.ndarray) -> np.ndarray:
    """The table's places (k, 3) of faces (n, 468, 3) in pixels."""
    numbers = APPROXIMATE.landmarks.tolist()
    pairs = {one: other for row in SIDES for one, other in (row[:2], row[1::-1])} | {row[0]: row[0] for row in MIDDLE}
    mirrored = [numbers.index(pairs[number]) for number in numbers]
    points = faces[:, [*numbers, CHIN]] * (1, -1, -1)
    whole, mean = points[0], points[0, :-1]
    for _ in range(ROUNDS):
        moved = [moved_by(similarity(each[:-1], mean), each) for each in points]
        whole = np.mean(moved, axis=0)
        other = whole[mirrored] * (-1, 1, 1)
        mean = (whole[:-1] + moved_by(similarity(other, whole[:-1]), other)) / 2
    across = mean[numbers.index(EYES[1])] - mean[numbers.index(EYES[0])]
    x = across / np.linalg.norm(across)
    up = mean[numbers.index(FOREHEAD)] - whole[-1]
    y = (up - x * (up @ x)) / np.linalg.norm(up - x * (up @ x))
    upright = mean @ np.stack([x, y, np.cross(x, y)]).T
    tilt = np.radians(TILT)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    turned = upright @ turn.T * SIZE / np.linalg.norm(across)
    eyes = turned[[numbers.index(eye) for eye in EYES]].mean(axis=0)
    return turned - eyes + ORIGIN


def moved_by(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (k, 3) by a matrix (4, 4)."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


if __name__ == "__main__":
    main()
