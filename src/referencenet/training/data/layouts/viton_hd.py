"""VITON-HD as it comes: `train_pairs.txt` and `train/{image,cloth,agnostic-mask,image-densepose,...}`.

People are dressed in their own garment while they are learned from, whatever garment the list pairs them with: the
truth shows no other. Descriptions stand in `vitonhd_train_tagged.json`, as IDM-VTON's authors added it; where it is not
there, in `garment_captions.json`. What people are said to be stands in `image_captions.json`: names to texts, both.
Pictures of more people in a garment, as StableGarment learns from, are called GARMENT@@NUMBER.jpg.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from referencenet.training.data.layouts.files import first_file, read_json, read_names
from referencenet.training.data.sample import Sample

TAGS = ("sleeveLength", "neckLine", "item")
"""Of a garment's tags those that its description is made of, in this order."""


def samples(root: Path, split: str) -> Iterator[Sample]:
    """People with their garment, mask, skeleton and DensePose.

    Raises:
        ValueError: If a list is of another kind.
    """
    pairs = first_file(root, [f"{split}_pairs.txt"], "VITON-HD")
    folder = root / split
    garments = descriptions(root, split) or texts(folder / "garment_captions.json")
    people = texts(folder / "image_captions.json")
    for line in read_names(pairs):
        person = line.split()[0]
        stem, dot, ending = person.rpartition(".")
        if not dot:
            raise ValueError(f"{pairs} has {line[:60]!r}; expected names of pictures, PERSON.jpg GARMENT.jpg.")
        garment = f"{stem.split('@@')[0]}.{ending}"
        yield Sample(
            name=person,
            target=folder / "image" / person,
            garment=folder / "cloth" / garment,
            garment_mask=folder / "cloth-mask" / garment,
            mask=folder / "agnostic-mask" / f"{stem}_mask.png",
            pose=folder / "openpose_img" / f"{stem}_rendered.png",
            dense=folder / "image-densepose" / person,
            caption=people.get(person),
            garment_caption=garments.get(garment),
        )


def descriptions(root: Path, split: str) -> dict[str, str]:
    """Garment to its description, made of its tags.

    Raises:
        ValueError: If the file is of another kind.
    """
    path = root / split / f"vitonhd_{split}_tagged.json"
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    try:
        for row in (row for rows in read_json(path, dict).values() for row in rows):
            told = {tag["tag_name"]: tag["tag_category"] for tag in row["tag_info"] if tag["tag_category"]}
            found[row["file_name"]] = "".join(f"{told[name]} " for name in TAGS if name in told)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} has a garment without file_name and tag_info, as VITON-HD's tags have them.") from (
            error
        )
    return found


def texts(path: Path) -> dict[str, str]:
    """Names to texts; none where there is no such file."""
    return {name: str(text) for name, text in read_json(path, dict).items()} if path.is_file() else {}
