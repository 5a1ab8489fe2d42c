"""Folders of pictures, in the order in which people count them."""

from __future__ import annotations

import re
from pathlib import Path

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif")
"""Endings of a folder's pictures."""


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order, without hidden files."""
    return sorted(
        (file for file in folder.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith(".")),
        key=natural,
    )


def natural(path: Path) -> tuple[list[tuple[str, int]], str]:
    """Sorts names as people count: 2 before 10."""
    parts = re.findall(r"([^0-9]*)([0-9]*)", path.name.lower())
    return [(text, int(number or -1)) for text, number in parts], path.name
