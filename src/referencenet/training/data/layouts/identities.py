"""A folder for each person: `train/NAME/*.jpg`, as FlashFace's training wants many pictures of everybody.

Beside a picture, under its name, may lie its caption (`.txt`) and where the face is (`.json`, as `refnet preprocess
--to face-box` writes it). Pictures of a person are each other's references: where some have a face's place, those.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from referencenet.inputs import read_text
from referencenet.media.folders import pictures_in
from referencenet.training.data.layouts.files import face_place, first_file, read_json
from referencenet.training.data.sample import Place, Sample


def samples(root: Path, split: str) -> Iterator[Sample]:
    """Pictures of people with other pictures of the same ones."""
    folder = first_file(root, [split], "identity")
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        pictures = pictures_in(person)
        boxes = {picture: face_beside(picture) for picture in pictures}
        for picture in pictures:
            others = [other for other in pictures if other != picture]
            faces = [other for other in others if boxes[other]]
            yield Sample(
                name=f"{person.name}/{picture.name}",
                target=picture,
                references=tuple(faces or others),
                reference_boxes=tuple(box for other in faces if (box := boxes[other])),
                face_box=boxes[picture],
                caption=caption_beside(picture),
            )


def caption_beside(picture: Path) -> str | None:
    """What a picture shows, as the file beside it says; None where no file does, "" of an empty one."""
    path = picture.with_suffix(".txt")
    if not path.is_file():
        return None
    return read_text(path, "a caption").strip() if path.stat().st_size else ""


def face_beside(picture: Path) -> Place | None:
    """Where a picture's face is, as the file beside it says; None where no file does.

    Raises:
        ValueError: If the file is of another kind.
    """
    path = picture.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        frames = read_json(path, dict)["frames"]
        place = frames[0]["place"] if frames else None
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} does not say where a face is; write it with refnet preprocess --to face-box.") from (
            error
        )
    return None if place is None else face_place(place, path)
