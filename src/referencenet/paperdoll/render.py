"""From a scene to pixels, and from units to places in the picture."""

from __future__ import annotations

import math

import numpy as np

from referencenet.paperdoll.backdrop import HEIGHT, draw_backdrop
from referencenet.paperdoll.canvas import Canvas, rasterize
from referencenet.paperdoll.drawing import draw_figure
from referencenet.paperdoll.pose import joints
from referencenet.paperdoll.scene import SHOTS, Scene

Size = int | tuple[int, int]
_FULL_WIDTH = 86.0  # units that a full shot must show across


def picture_size(size: Size) -> tuple[int, int]:
    """Read a size given as one number or as (width, height)."""
    width, height = (size, size) if isinstance(size, int) else size
    if not (isinstance(width, int) and isinstance(height, int) and 16 <= width <= 4096 and 16 <= height <= 4096):
        raise ValueError(f"size is {size!r}; expected pixels from 16 to 4096, one number or (width, height)")
    return width, height


def view_matrix(scene: Scene, size: Size) -> np.ndarray:
    """Give the affine map from units to pixels.

    Returns:
        (2, 3) float64: pixels = matrix[:, :2] @ (x, y) + matrix[:, 2].
    """
    width, height = picture_size(size)
    camera = scene.camera
    tall = SHOTS[camera.shot] / camera.zoom
    scale = min(height / tall, width / (tall * _FULL_WIDTH / SHOTS["full body"]))
    found = joints(scene.character, scene.pose)
    if camera.shot == "full body":
        centre = (0.0, 49.4)
    else:
        centre = (float(found["head"][0]), float(found["head"][1]) + (14.0 if camera.shot == "upper body" else 1.5))
    turn = math.radians(camera.tilt)
    a = scale * np.array(((math.cos(turn), -math.sin(turn)), (math.sin(turn), math.cos(turn))))
    middle = np.array((centre[0] + camera.pan[0], centre[1] + camera.pan[1]))
    return np.column_stack((a, np.array((width / 2, height / 2)) - a @ middle))


def compose(scene: Scene, size: Size, *, annotate: bool = False) -> Canvas:
    """Draw a scene without making pixels of it."""
    width, height = picture_size(size)
    canvas = Canvas(annotate=annotate)
    canvas.paint(f'<g transform="scale({height / HEIGHT:.5f})">')
    draw_backdrop(canvas, scene.background, scene.camera.shot, width * HEIGHT / height)
    canvas.paint("</g>")
    (a, c, e), (b, d, f) = view_matrix(scene, size)
    canvas.group(f'transform="matrix({a:.5f} {b:.5f} {c:.5f} {d:.5f} {e:.4f} {f:.4f})"')
    draw_figure(canvas, scene)
    canvas.end()
    return canvas


def render(scene: Scene, size: Size = 64) -> np.ndarray:
    """Draw a scene.

    Args:
        scene: What to draw.
        size: Pixels of a square picture, or (width, height).

    Returns:
        (height, width, 3) uint8, the same on every machine.
    """
    width, height = picture_size(size)
    canvas = compose(scene, size)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{"".join(canvas.painted)}</svg>'
    return rasterize(svg, width, height)
