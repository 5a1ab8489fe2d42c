"""A flat folder, as Hugging Face's image folders: `train/metadata.jsonl` with `file_name` and `text`, pictures beside.

Rows of one `character` are each other's references; where some have a `face_box`, those alone. Annotations, where there
are any, lie in `annotations/` under the picture's name: `_skeleton`, `_dense`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from referencenet.training.data.layouts.files import face_place, first_file, read_rows
from referencenet.training.data.sample import Sample


def samples(root: Path, split: str) -> Iterator[Sample]:
    """Pictures with caption, annotations, and other pictures of the same character.

    Raises:
        ValueError: If a line of the list is of another kind.
    """
    listing = first_file(root, [f"{split}/metadata.jsonl"], "flat")
    rows = read_rows(listing, {"file_name": str}, {"text": str, "face_box": list})
    same: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        same[str(row.get("character"))].append(row)
    for row in rows:
        target = root / split / row["file_name"]
        notes = {kind: root / "annotations" / f"{target.stem}_{kind}.png" for kind in ("skeleton", "dense")}
        others = [other for other in same[str(row["character"])] if other is not row] if "character" in row else []
        faces = [other for other in others if other.get("face_box")]
        yield Sample(
            name=row["file_name"],
            target=target,
            references=tuple(root / split / other["file_name"] for other in (faces or others)),
            reference_boxes=tuple(face_place(other["face_box"], listing) for other in faces),
            face_box=face_place(row["face_box"], listing) if row.get("face_box") else None,
            pose=notes["skeleton"] if notes["skeleton"].is_file() else None,
            dense=notes["dense"] if notes["dense"].is_file() else None,
            caption=row.get("text"),
        )
