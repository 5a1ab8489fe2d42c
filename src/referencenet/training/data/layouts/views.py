"""Multi-view folders: `train/NAME/views/NN.png` of one person, and `cameras/NN.png` of another head from there.

The layout is ours, since DiffPortrait3D's data set was never published; files of one name are of one camera.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from referencenet.media.folders import pictures_in
from referencenet.training.data.layouts.files import first_file
from referencenet.training.data.sample import Sample


def samples(root: Path, split: str) -> Iterator[Sample]:
    """People from several cameras."""
    folder = first_file(root, [split], "multi-view")
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        views, cameras = (_pictures(person / kind) for kind in ("views", "cameras"))
        both = [path for path in views if (person / "cameras" / path.name) in cameras]
        yield Sample(
            name=person.name,
            views=tuple(both),
            cameras=tuple(person / "cameras" / path.name for path in both),
        )


def _pictures(folder: Path) -> list[Path]:
    return pictures_in(folder) if folder.is_dir() else []
