"""A folder for each person: `train/NAME/*.jpg`, as FlashFace's training wants many pictures of everybody.

Beside a picture, under its name, may lie its caption (`.txt`) and where the face is (`.json`, as `refnet preprocess
--to face-box` writes it). Pictures of a person are each other's references: where some have a face's place, those.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from referencenet.media.films import PICTURES
from referencenet.training.data.layouts.files import first_file, read_json
from referencenet.training.data.sample import Sample


def samples(root: Path, split: str) -> Iterator[Sample]:
    """Pictures of people with other pictures of the same ones."""
    folder = first_file(root, [split], "identity")
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        pictures = sorted(path for path in person.iterdir() if path.suffix.lower() in PICTURES)
        boxes = {picture: face_place(picture) for picture in pictures}
        for picture in pictures:
            others = [other for other in pictures if other != picture]
            faces = [other for other in others if boxes[other]]
            told = picture.with_suffix(".txt")
            yield Sample(
                name=f"{person.name}/{picture.name}",
                target=picture,
                references=tuple(faces or others),
                reference_boxes=tuple(box for other in faces if (box := boxes[other])),
                face_box=boxes[picture],
                caption=told.read_text(encoding="utf-8").strip() if told.is_file() else None,
            )


def face_place(picture: Path) -> tuple[float, ...] | None:
    """Where a picture's face is: left, top, right and bottom as shares of its sides; None where no file tells it.

    Raises:
        ValueError: If the file beside the picture is of another kind.
    """
    path = picture.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        frames = read_json(path, dict)["frames"]
        place = tuple(float(share) for share in frames[0]["place"]) if frames else None
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} does not say where a face is; write it with refnet preprocess --to face-box.") from (
            error
        )
    if place is not None and not (len(place) == 4 and 0 <= place[0] < place[2] <= 1 and 0 <= place[1] < place[3] <= 1):
        raise ValueError(f"{path} has the face at {place}; expected left, top, right, bottom as shares of the sides.")
    return place
