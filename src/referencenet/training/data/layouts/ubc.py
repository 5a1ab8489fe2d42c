"""UBC fashion as Moore-AnimateAnyone reads it: `fashion_train_meta.json` lists films and films of their skeletons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from referencenet.training.data.layouts.files import first_file, read_rows
from referencenet.training.data.sample import Sample


def samples(root: Path, split: str) -> Iterator[Sample]:
    """Films with their skeletons, and DensePose where `<split>_densepose` has it.

    Raises:
        ValueError: If an entry of the list is of another kind.
    """
    listing = first_file(root, [f"fashion_{split}_meta.json", f"{split}_meta.json"], "UBC")
    for row in read_rows(listing, {"video_path": str, "kps_path": str}, {}):
        film = root / row["video_path"]
        dense = film.parent.with_name(f"{film.parent.name}_densepose") / film.name
        yield Sample(
            name=row["video_path"],
            target=film,
            pose=root / row["kps_path"],
            dense=dense if dense.is_file() else None,
        )
