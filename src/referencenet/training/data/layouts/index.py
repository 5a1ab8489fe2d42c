"""Data sets in the layouts in which they lie on people's disks; one file each.

A layout is a function `samples(root, split)` that gives samples with whatever files it finds; what a stage needs is
asked of each by `whole_ones`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from referencenet.training.config import meant
from referencenet.training.data.layouts import (
    aniportrait,
    flat,
    hdtf,
    identities,
    parts2whole,
    tiktok,
    ubc,
    views,
    viton_hd,
)
from referencenet.training.data.sample import Found, Sample, whole_ones

LAYOUTS: Mapping[str, Callable[[Path, str], Iterator[Sample]]] = {
    "aniportrait": aniportrait.samples,
    "flat": flat.samples,
    "hdtf": hdtf.samples,
    "identities": identities.samples,
    "parts2whole": parts2whole.samples,
    "tiktok": tiktok.samples,
    "ubc": ubc.samples,
    "views": views.samples,
    "viton_hd": viton_hd.samples,
}
"""By name."""


def open_dataset(root: str | Path, layout: str, split: str, needs: Sequence[str] = ()) -> Found:
    """Find a data set's samples.

    Args:
        root: Its folder.
        layout: One of `LAYOUTS`.
        split: Such as train or test.
        needs: Fields that every sample must have; others are left out and told.

    Raises:
        FileNotFoundError: If there is no such folder, or it is of another layout.
        ValueError: If there is no such layout, or no whole sample.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"there is no layout {layout!r}{meant(layout, LAYOUTS)}")
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no data set {root}; give the folder that holds it.")
    return whole_ones(LAYOUTS[layout](root, split), needs, f"{root} ({layout}, {split})")
