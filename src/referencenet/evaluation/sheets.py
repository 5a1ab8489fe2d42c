"""The first cases of a measurement as one picture: a row for each way of drawing them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

CASES, FRAMES, FACTOR = 12, 4, 2


def sheet_of(pictures: Mapping[str, np.ndarray]) -> Image.Image:
    """A sheet, in the order of the mapping; of films some frames of some cases.

    Args:
        pictures: Way to pictures (n, H, W, 3), of films (n, f, H, W, 3), uint8.
    """
    rows = [np.concatenate(list(_shown(drawn)), axis=1) for drawn in pictures.values()]
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    return sheet.resize((FACTOR * sheet.width, FACTOR * sheet.height), Image.Resampling.NEAREST)


def _shown(drawn: np.ndarray) -> np.ndarray:
    """The pictures of a row, (m, H, W, 3)."""
    if drawn.ndim == 4:
        return drawn[:CASES]
    places = np.linspace(0, drawn.shape[1] - 1, FRAMES).astype(int)
    return drawn[: CASES // FRAMES, places].reshape(-1, *drawn.shape[2:])
