"""Fails unless a demo's sheet shows something, and its references helped, by its own scores.

Usage: python .ci/check_demo.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def check(folder: Path) -> None:
    """Raise if the sheet is blank or no link recognised people better than drawing without a reference."""
    with Image.open(folder / "demo.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"), dtype=float)
    if min(pixels.shape[:2]) < 200 or pixels.std() < 10:
        raise SystemExit(f"the sheet is blank: {pixels.shape}, standard deviation {pixels.std():.1f}")
    scores = json.loads((folder / "demo.json").read_text(encoding="utf-8"))["scores"]
    without = scores["without"]
    for name in ("attention", "ReferenceNet"):
        if not scores[name] > without:
            raise SystemExit(f"{name} scores {scores[name]:.3f}, without a reference it is {without:.3f}")
    print(f"demo: {', '.join(f'{name} {score:.2f}' for name, score in scores.items())}")


if __name__ == "__main__":
    check(Path(sys.argv[1]))
