"""From the raw numbers of a single-shot detector to what it has found: anchors, boxes, key points, one for each thing.

The detectors are MediaPipe's: they answer for a grid of cells with a box and key points relative to each cell. Answers
to the same thing are averaged by their scores, as in MediaPipe: that shakes less over frames than the best alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from referencenet.preprocess.faces import Box
from referencenet.preprocess.regions import overlap

SAME = 0.3  # overlap from which on two answers mean the same thing, as published


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """One thing that was found, as fractions of what the network saw.

    Attributes:
        box: Left, top, right, bottom.
        points: Key points (n, 2).
        score: 0 to 1.
    """

    box: Box
    points: np.ndarray
    score: float


def anchors(side: int, layers: Sequence[tuple[int, int]]) -> np.ndarray:
    """Middles of the cells.

    Args:
        side: Of the network's picture in pixels.
        layers: Stride in pixels, and answers of each cell.

    Returns:
        (answers, 2), x and y as fractions of the picture.
    """
    rows = []
    for stride, count in layers:
        places = (np.arange(side // stride) + 0.5) * stride / side
        grid = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
        rows.append(np.repeat(grid, count, axis=0))
    return np.concatenate(rows)


def detections(values: np.ndarray, logits: np.ndarray, cells: np.ndarray, side: int, least: float) -> list[Detection]:
    """What was found, the surest first.

    Args:
        values: (answers, 4 + 2 n): middle, width and height of the box, then n points; pixels from the cell's middle.
        logits: (answers,) of the scores.
        cells: (answers, 2), of `anchors`.
        side: Of the network's picture in pixels.
        least: Answers of a lower score are left out.
    """
    scores = sigmoid(logits)
    kept = np.flatnonzero(scores >= least)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    places = values[kept].reshape(len(kept), values.shape[1] // 2, 2) / side
    sizes = places[:, 1].copy()
    places += cells[kept][:, None]
    rows = np.concatenate(
        [places[:, 0] - sizes / 2, places[:, 0] + sizes / 2, places[:, 2:].reshape(len(kept), values.shape[1] - 4)], 1
    )
    return merged(rows, scores[kept])


def merged(rows: np.ndarray, scores: np.ndarray) -> list[Detection]:
    """One detection for all answers whose boxes overlap, averaged by score.

    Args:
        rows: (answers, 4 + 2 n): box and points; the surest first.
        scores: (answers,).
    """
    found: list[Detection] = []
    left = list(range(len(rows)))
    while left:
        best = left[0]
        same = [i for i in left if i == best or overlap(tuple(rows[i, :4]), tuple(rows[best, :4])) > SAME]
        left = [i for i in left if i not in same]
        mean = np.average(rows[same], axis=0, weights=scores[same])
        x0, y0, x1, y1 = mean[:4].tolist()
        found.append(Detection(box=(x0, y0, x1, y1), points=mean[4:].reshape(-1, 2), score=float(scores[best])))
    return found


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Of any shape; large values are clipped."""
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
