"""Face box and the 68 face landmarks, in the order of iBUG 300-W (dlib).

0-16 jaw from the right ear over the chin to the left, 17-21 right brow, 22-26 left brow, 27-30 ridge of the nose,
31-35 its base, 36-41 right eye, 42-47 left eye, 48-59 outer and 60-67 inner edge of the mouth, all from the right of
the person (the left of the picture) to the left. A head that turns keeps its outline, so the jaw does too.
"""

from __future__ import annotations

import math

import numpy as np

from referencenet.paperdoll.ball import RX, RY, Head, eye_size, jaw_curve
from referencenet.paperdoll.canvas import Point
from referencenet.paperdoll.face import brow_points, mouth_lips
from referencenet.paperdoll.figure import Figure
from referencenet.paperdoll.maps import face_mask
from referencenet.paperdoll.render import Size, picture_size, view_matrix
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.skeleton import in_figure

Placed = tuple[float, float, float]  # x, y in the head's units, and whether it is turned to the viewer
NUM_LANDMARKS = 68


def is_face_seen(scene: Scene) -> bool:
    """Say whether nose and mouth are turned to the viewer."""
    return Figure.of(scene).head.ball.at(0, 10.4)[2] >= 0.05


def landmarks(scene: Scene, size: Size = 64) -> np.ndarray:
    """Find the 68 face landmarks of a scene.

    Args:
        scene: What is drawn.
        size: As for `render`; only the proportion of width to height matters.

    Returns:
        (68, 3) float32: x and y as fractions of the picture's width and height, then visibility: 1 for points that are
        turned to the viewer and inside the picture, else 0. From behind all are 0.
    """
    figure = Figure.of(scene)
    width, height = picture_size(size)
    matrix = view_matrix(scene, size)
    seen_at_all = is_face_seen(scene)
    result = np.zeros((NUM_LANDMARKS, 3), dtype=np.float32)
    for row, (x, y, seen) in enumerate(_in_head(figure.head)):
        px, py = (matrix[:, :2] @ in_figure(figure, (x, y)) + matrix[:, 2]) / (width, height)
        result[row] = px, py, seen_at_all and seen > 0 and 0 <= px <= 1 and 0 <= py <= 1
    return result


def _in_head(head: Head) -> list[Placed]:
    return [*_jaw(head), *_brows(head), *_nose(head), *_eye(head, -1), *_eye(head, 1), *_mouth(head)]


def _jaw(head: Head) -> list[Placed]:
    right = [jaw_curve(head.character.face, i / 8) for i in range(9)]
    return [*((-x, y, 1.0) for x, y in right), *((x, y, 1.0) for x, y in right[-2::-1])]


def _brows(head: Head) -> list[Placed]:
    inner_first = [five_of(brow_points(head, side)) for side in (-1, 1)]
    return [*inner_first[0][::-1], *inner_first[1]]


def five_of(points: list[Placed]) -> list[Placed]:
    """Make five points of three by the parabola through them."""
    a, b, c = (np.array(point) for point in points)
    weights = [((1 - 2 * t) * (1 - t), 4 * t * (1 - t), t * (2 * t - 1)) for t in (0, 0.25, 0.5, 0.75, 1)]
    return [tuple(float(v) for v in wa * a + wb * b + wc * c) for wa, wb, wc in weights]  # type: ignore[misc]


def _nose(head: Head) -> list[Placed]:
    ridge = [head.ball.at(0, height, 1.05) for height in (-1.0, 1.2, 3.4, 5.6)]
    base = [head.ball.at(lon, 6.6, 1.02) for lon in (-7.0, -3.5, 0.0, 3.5, 7.0)]
    return [*ridge, *base]


def _eye(head: Head, side: int) -> list[Placed]:
    x, y, z = head.ball.at(side * 25, 1.6)
    wide, tall = eye_size(z, head.expression.eyes)
    seen = 1.0 if z >= 0.12 else 0.0
    if tall == 0:  # shut: the arc of the lashes
        offsets: list[Point] = [(-1.0, 0.6), (-0.35, 1.6), (0.35, 1.6), (1.0, 0.6), (0.35, 1.6), (-0.35, 1.6)]
        return [(x + wide * dx, y + dy, seen) for dx, dy in offsets]
    angles = [math.radians(a) for a in (180, 240, 300, 0, 60, 120)]  # outer corner of the right eye first, clockwise
    return [(x + wide * math.cos(a), y + tall * math.sin(a), seen) for a in angles]


def _mouth(head: Head) -> list[Placed]:
    seen = 1.0 if head.ball.at(0, 10.4)[2] >= 0.05 else 0.0
    upper, lower = mouth_lips(head, 7)
    if head.expression.mouth < 0.06:
        lower = upper
    inner_upper, inner_lower = mouth_lips(head, 5)
    if head.expression.mouth < 0.06:
        inner_lower = inner_upper
    outer = [*upper, *lower[-2:0:-1]]
    inner = [*inner_upper, *inner_lower[-2:0:-1]]
    return [(x, y, seen) for x, y in (*outer, *inner)]


def face_box(scene: Scene, size: Size = 64) -> np.ndarray | None:
    """Find the smallest upright box around the face, with its forehead and without hair that stands out.

    Returns:
        (4,) float32: left, top, right, bottom as fractions of the picture, inside it; None if no face is seen.
    """
    if not is_face_seen(scene):
        return None
    figure = Figure.of(scene)
    width, height = picture_size(size)
    matrix = view_matrix(scene, size)
    right = [jaw_curve(scene.character.face, i / 16) for i in range(17)]
    crown = [(RX * math.cos(a), -RY * math.sin(a)) for a in np.linspace(0, math.pi, 17)]
    outline = [*right, *((-x, y) for x, y in right), *crown]
    pixels = np.array([matrix[:, :2] @ in_figure(figure, point) + matrix[:, 2] for point in outline])
    box = np.concatenate((pixels.min(axis=0), pixels.max(axis=0))) / (width, height, width, height)
    box = np.clip(box, 0, 1).astype(np.float32)
    return box if box[2] > box[0] and box[3] > box[1] else None


def expression_mask(scene: Scene, size: Size = 64) -> np.ndarray:
    """Say where expressions show: boxes around brows and eyes and around the mouth, inside the face; (H, W) bool."""
    width, height = picture_size(size)
    mask = np.zeros((height, width), dtype=bool)
    if not is_face_seen(scene):
        return mask
    points = landmarks(scene, size)[:, :2] * (width, height)
    margin = 0.06 * float(np.ptp(points[:17, 0]))
    for group in (slice(17, 27), slice(36, 48), slice(48, 68)):
        left, top = np.floor(points[group].min(axis=0) - margin).astype(int).clip(0)
        right, bottom = np.ceil(points[group].max(axis=0) + margin).astype(int).clip(0)
        mask[top:bottom, left:right] = True
    return mask & face_mask(scene, size)
