"""Key points in the order of OpenPose's 18-point body model, and its drawing on black.

The colours, the order of the limbs and the darkening of the limbs (0.6) are those that OpenPose published and that pose
ControlNets were trained with.
"""

from __future__ import annotations

import numpy as np

from referencenet.paperdoll.canvas import Canvas, Point, rasterize
from referencenet.paperdoll.character import Character
from referencenet.paperdoll.figure import Figure
from referencenet.paperdoll.pose import POSES, Pose
from referencenet.paperdoll.render import Size, picture_size, view_matrix
from referencenet.paperdoll.scene import Scene
from referencenet.telling import did_you_mean

KEYPOINT_NAMES = (
    "nose",
    "neck",
    "right shoulder",
    "right elbow",
    "right wrist",
    "left shoulder",
    "left elbow",
    "left wrist",
    "right hip",
    "right knee",
    "right ankle",
    "left hip",
    "left knee",
    "left ankle",
    "right eye",
    "left eye",
    "right ear",
    "left ear",
)
LIMBS = (
    (1, 2),
    (1, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (1, 8),
    (8, 9),
    (9, 10),
    (1, 11),
    (11, 12),
    (12, 13),
    (1, 0),
    (0, 14),
    (14, 16),
    (0, 15),
    (15, 17),
)
COLOURS = (
    (255, 0, 0),
    (255, 85, 0),
    (255, 170, 0),
    (255, 255, 0),
    (170, 255, 0),
    (85, 255, 0),
    (0, 255, 0),
    (0, 255, 85),
    (0, 255, 170),
    (0, 255, 255),
    (0, 170, 255),
    (0, 85, 255),
    (0, 0, 255),
    (85, 0, 255),
    (170, 0, 255),
    (255, 0, 255),
    (255, 0, 170),
    (255, 0, 85),
)
_FACE = {
    "nose": (0.0, 5.6),
    "right eye": (-25.0, 1.6),
    "left eye": (25.0, 1.6),
    "right ear": (-88.0, 2.5),
    "left ear": (88.0, 2.5),
}
_HIDDEN = {"nose": 0.0, "right eye": 0.12, "left eye": 0.12, "right ear": -0.45, "left ear": -0.45}


def in_figure(figure: Figure, point: Point) -> Point:
    """Move a point from the head's own units into the figure's."""
    x, y = figure.at("head")
    turn = np.deg2rad(figure.scene.pose.head_tilt + figure.scene.pose.sway)
    dx, dy = point[0], point[1] - 12.0  # the head tilts around its chin, 12 units below its middle
    return float(x + dx * np.cos(turn) - dy * np.sin(turn)), float(y + 12.0 + dx * np.sin(turn) + dy * np.cos(turn))


def keypoints(scene: Scene, size: Size = 64) -> np.ndarray:
    """Find the 18 key points of a scene.

    Args:
        scene: What is drawn.
        size: As for `render`; only the proportion of width to height matters.

    Returns:
        (18, 3) float32: x and y as fractions of the picture's width and height, then visibility, 1 for points on a side
        that is turned to the viewer and inside the picture, else 0. Points that are merely covered (a hand before the
        chest) count as visible, as people mark them.
    """
    figure = Figure.of(scene)
    width, height = picture_size(size)
    matrix = view_matrix(scene, size)
    result = np.zeros((18, 3), dtype=np.float32)
    for row, name in enumerate(KEYPOINT_NAMES):
        seen = True
        if name in _FACE:
            x, y, z = figure.head.ball.at(*_FACE[name], 1.04 if "ear" in name else 1.0)
            point, seen = in_figure(figure, (x, y)), z >= _HIDDEN[name]
        else:
            point = figure.at(name)
        x, y = (matrix[:, :2] @ point + matrix[:, 2]) / (width, height)
        result[row] = x, y, seen and 0 <= x <= 1 and 0 <= y <= 1
    return result


def skeleton(scene: Scene, size: Size = 64) -> np.ndarray:
    """Draw the OpenPose skeleton of a scene on black.

    Returns:
        (height, width, 3) uint8.
    """
    return draw_skeleton(keypoints(scene, size), size)


def named_skeleton(name: str, size: Size = 64, view: str = "front") -> np.ndarray:
    """Draw the OpenPose skeleton of a pose by its name, of a person of middle build, on black.

    Args:
        name: One of `POSES`, such as `waving`.
        size: As for `render`.
        view: The side it is seen from: front, left, right or back.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: If there is no such pose; says the nearest.
    """
    if name not in POSES:
        raise ValueError(f"there is no pose {name!r}; expected one of {', '.join(POSES)}.{did_you_mean(name, POSES)}")
    return skeleton(Scene(character=Character.from_seed(0), pose=Pose.named(name, view)), size)


def draw_skeleton(points: np.ndarray, size: Size = 64) -> np.ndarray:
    """Draw key points, (18, 3) as `keypoints` gives them, as a skeleton on black; (height, width, 3) uint8.

    Lines are as thick against the picture as OpenPose's 4 pixels are at 512, but never thinner than 1.6 pixels.
    """
    width, height = picture_size(size)
    thick = max(1.6, min(width, height) / 64)
    canvas = Canvas()
    at = [(float(x) * width, float(y) * height) for x, y, _ in points]
    for limb, (a, b) in enumerate(LIMBS):
        if points[a, 2] > 0 and points[b, 2] > 0:
            r, g, b_ = (int(channel * 0.6) for channel in COLOURS[limb])
            canvas.paint(
                f'<path d="M{at[a][0]:.2f} {at[a][1]:.2f}L{at[b][0]:.2f} {at[b][1]:.2f}" stroke="rgb({r},{g},{b_})" '
                f'stroke-width="{thick * 1.25:.2f}" stroke-linecap="round"/>'
            )
    for (x, y), (_, _, seen), colour in zip(at, points, COLOURS, strict=True):
        if seen > 0:
            canvas.paint(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{thick * 0.75:.2f}" fill="rgb{colour}"/>')
    body = f'<rect width="{width}" height="{height}" fill="#000"/>{"".join(canvas.painted)}'
    return rasterize(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{body}</svg>', width, height
    )
