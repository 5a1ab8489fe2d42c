"""VITON-HD as it comes: `train_pairs.txt` and `train/{image,cloth,agnostic-mask,image-densepose,...}`.

People are dressed in their own garment while they are learned from, whatever garment the list pairs them with: the
truth shows no other. Descriptions stand in `vitonhd_train_tagged.json`, as IDM-VTON's authors added it, or in none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from referencenet.training.data.layouts.files import first_file, read_json
from referencenet.training.data.sample import Sample

TAGS = ("sleeveLength", "neckLine", "item")
"""Of a garment's tags those that its description is made of, in this order."""


def samples(root: Path, split: str) -> Iterator[Sample]:
    """People with their garment, mask, skeleton and DensePose."""
    pairs = first_file(root, [f"{split}_pairs.txt"], "VITON-HD")
    tags = descriptions(root, split)
    folder = root / split
    for line in pairs.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        person = line.split()[0]
        stem = person.rsplit(".", 1)[0]
        yield Sample(
            name=person,
            target=folder / "image" / person,
            garment=folder / "cloth" / person,
            garment_mask=folder / "cloth-mask" / person,
            mask=folder / "agnostic-mask" / f"{stem}_mask.png",
            pose=folder / "openpose_img" / f"{stem}_rendered.png",
            dense=folder / "image-densepose" / person,
            garment_caption=tags.get(person),
        )


def descriptions(root: Path, split: str) -> dict[str, str]:
    """Garment to its description, made of its tags."""
    path = root / split / f"vitonhd_{split}_tagged.json"
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for rows in read_json(path, dict).values():
        for row in rows:
            told = {tag["tag_name"]: tag["tag_category"] for tag in row["tag_info"] if tag["tag_category"]}
            found[row["file_name"]] = "".join(f"{told[name]} " for name in TAGS if name in told)
    return found
