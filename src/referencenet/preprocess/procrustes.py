"""Similarity transforms between sets of points: weighted orthogonal Procrustes analysis.

Akca 2003, "Generalized Procrustes analysis and its applications in photogrammetry", section 2.4, without reflections.
Letters: k points of d axes.
"""

from __future__ import annotations

import numpy as np


def similarity(source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The scaling, rotation and translation that brings points closest to others, by the weighted sum of squares.

    Args:
        source: (k, d).
        target: (k, d), for each point where it shall be.
        weights: (k,), none of them negative; None: all alike.

    Returns:
        (d + 1, d + 1), for columns from the right: the upper left (d, d) is a scaled rotation.

    Raises:
        ValueError: If shapes do not fit, weights are negative or zero, or all points lie at one place.
    """
    source, target = (np.asarray(points, dtype=np.float64) for points in (source, target))
    shares = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    if source.ndim != 2 or source.shape != target.shape or shares.shape != source.shape[:1]:
        raise ValueError(
            f"the points have shapes {source.shape} and {target.shape}, the weights {shares.shape}; expected (k, d) "
            "twice, and (k,)."
        )
    if (shares < 0).any() or not shares.sum() > 0:
        raise ValueError("the points' weights are negative or all zero; expected positive ones.")
    shares = (shares / shares.sum())[:, None]
    middles = [(shares * points).sum(axis=0) for points in (source, target)]
    centred, aimed = source - middles[0], target - middles[1]
    spread = float((shares * centred**2).sum())
    left, values, right = np.linalg.svd((shares * aimed).T @ centred)
    if spread < 1e-12 or values[0] < 1e-12:
        raise ValueError("the points lie at one place, so that they have no direction; expected a spread.")
    signs = np.ones(len(values))
    signs[-1] = np.sign(np.linalg.det(left @ right))  # a rotation, not a reflection
    turned = (left * signs) @ right * float(values @ signs) / spread
    found = np.eye(len(values) + 1)
    found[:-1, :-1], found[:-1, -1] = turned, middles[1] - turned @ middles[0]
    return found
