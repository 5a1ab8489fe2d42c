"""Scores against the right answer: PSNR and SSIM of pictures whose truth can be rendered.

SSIM as in Wang, Bovik, Sheikh and Simoncelli 2004, section III.C: Gaussian window of 11 x 11 with deviation 1.5,
K1 = 0.01, K2 = 0.03, windows that lie inside the picture; on colour pictures the mean over the channels.
"""

from __future__ import annotations

import numpy as np

WINDOW, DEVIATION, K1, K2 = 11, 1.5, 0.01, 0.03


def _pair(picture: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pictures: list[np.ndarray] = []
    for name, array in (("picture", picture), ("truth", truth)):
        array = np.asarray(array)
        if array.ndim not in (2, 3):
            raise ValueError(f"{name} has shape {array.shape}; expected (height, width) or (height, width, channels)")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity; expected finite values, uint8 or floats in [0, 1]")
        pictures.append(array / 255.0 if array.dtype == np.uint8 else array.astype(np.float64))
    if pictures[0].shape != pictures[1].shape:
        raise ValueError(f"picture is {pictures[0].shape} but truth is {pictures[1].shape}; expected the same shape")
    return pictures[0], pictures[1]


def psnr(picture: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels; infinite for equal pictures.

    Args:
        picture: (H, W) or (H, W, C), uint8, or floats in [0, 1].
        truth: Of the same shape.
    """
    a, b = _pair(picture, truth)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity, 1 for equal pictures.

    Args:
        picture: (H, W) or (H, W, C), uint8, or floats in [0, 1]; at least 11 pixels each way.
        truth: Of the same shape.
    """
    return float(np.mean(ssim_map(picture, truth)))


def ssim_map(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity window by window: (H - 10, W - 10) or (H - 10, W - 10, C); arguments as for `ssim`."""
    a, b = _pair(picture, truth)
    if min(a.shape[:2]) < WINDOW:
        raise ValueError(f"pictures are {a.shape[:2]}; expected at least {WINDOW} pixels each way for SSIM's window")
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a, var_b = _blurred(a * a) - mean_a**2, _blurred(b * b) - mean_b**2
    both = _blurred(a * b) - mean_a * mean_b
    c1, c2 = K1**2, K2**2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def _blurred(values: np.ndarray) -> np.ndarray:
    """Blur (H, W, ...) with the Gaussian window; (H - 10, W - 10, ...)."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-(offsets**2) / (2 * DEVIATION**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        length = values.shape[axis] - WINDOW + 1
        shifted = [np.take(values, np.arange(i, i + length), axis=axis) for i in range(WINDOW)]
        values = np.tensordot(kernel, np.stack(shifted), axes=1)
    return values
