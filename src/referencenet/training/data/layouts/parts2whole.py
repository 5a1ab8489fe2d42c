"""Parts2Whole's data set: one JSON line per sample, with paths below the folder.

A line has `target`, `appearance` and `mask` (label to path), `structure` (kind to path) and `caption`; the lines of a
split lie in `train.jsonl` or `test.jsonl`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from referencenet.training.data.layouts.files import first_file, read_rows
from referencenet.training.data.sample import Sample

NEEDED = {"target": str, "appearance": dict}
FURTHER = {"mask": dict, "structure": dict, "caption": str}


def samples(root: Path, split: str) -> Iterator[Sample]:
    """People with pictures of their parts.

    Raises:
        ValueError: If a line of the list is of another kind.
    """
    for row in read_rows(first_file(root, [f"{split}.jsonl"], "Parts2Whole"), NEEDED, FURTHER):
        structure = {kind: root / path for kind, path in (row.get("structure") or {}).items()}
        yield Sample(
            name=row["target"],
            target=root / row["target"],
            parts={label: root / path for label, path in sorted(row["appearance"].items())},
            part_masks={label: root / path for label, path in sorted((row.get("mask") or {}).items())},
            dense=structure.get("densepose"),
            pose=structure.get("openpose"),
            caption=row.get("caption"),
        )
