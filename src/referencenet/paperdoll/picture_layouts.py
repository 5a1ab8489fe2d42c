"""Layouts of single pictures: an image folder, people in parts, a folder for each person, a person from all cameras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from referencenet.paperdoll.cameras import CAMERAS, seen_from
from referencenet.paperdoll.captions import attributes, caption
from referencenet.paperdoll.character import Character
from referencenet.paperdoll.entries import Entry, Layout, Rows, drawn_cast, other_than, people, save, save_json
from referencenet.paperdoll.entries import save_lines as save_lists
from referencenet.paperdoll.landmarks import face_box, landmarks
from referencenet.paperdoll.maps import FACE, dense_map, dense_picture, part_mask, segmentation
from referencenet.paperdoll.pose import ARM_POSES, Pose
from referencenet.paperdoll.render import picture_size, render
from referencenet.paperdoll.scene import Background, Camera, Expression, Scene
from referencenet.paperdoll.skeleton import draw_skeleton, keypoints
from referencenet.paperdoll.streams import Stream

LOOKS = 5
"""Pictures of each person in a folder of identities."""


# --- flat ---------------------------------------------------------------------------------------------------------


def _flat_cast(seed: int, count: int) -> Iterator[tuple[int, int, str]]:
    """Two pictures of each character, one after the other, so that the one can be the other's reference."""
    cast, scenes = list(people(seed, (count + 1) // 2)), Stream("flat scenes", seed)
    for number in range(count):
        character, part = cast[number // 2]
        yield character, scenes.integer(2**31), part


def _draw_flat(root: Path, entry: Entry) -> dict[str, Any]:
    scene, size, name = Scene.from_seeds(entry.character, entry.seed), entry.size, f"{entry.number:06d}"
    points, box = keypoints(scene, size), face_box(scene, size)
    save(render(scene, size), root / entry.split / f"{name}.png")
    save(draw_skeleton(points, size), root / "annotations" / f"{name}_skeleton.png")
    save(segmentation(scene, size), root / "annotations" / f"{name}_parts.png")
    save(dense_map(scene, size), root / "annotations" / f"{name}_dense.png")
    return {
        "file_name": f"{name}.png",
        "text": caption(scene),
        "text_without_identity": caption(scene, identity=False),
        "character": entry.character,
        "attributes": attributes(scene),
        "keypoints": np.round(points.astype(float), 5).tolist(),
        "landmarks": np.round(landmarks(scene, size).astype(float), 5).tolist(),
        "face_box": None if box is None else np.round(box.astype(float), 5).tolist(),
    }


def _finish_flat(folder: Path, rows: Rows) -> None:
    save_lists(folder, "{}/metadata.jsonl", rows)


FLAT = Layout(draw=_draw_flat, finish=_finish_flat, width=1.0, cast=_flat_cast)


# --- parts --------------------------------------------------------------------------------------------------------

_HEAD = {"hair or headwear": ("hair", "hat"), "face": FACE, "shoes": ("right shoe", "left shoe")}
_CLOTHES = {
    "upper body clothes": ("upper garment",),
    "lower body clothes": ("lower garment",),
    "whole body clothes": ("upper garment", "lower garment"),
}
_HAIR = "hair_style", "hair_colour", "hat", "hat_colour"
_UPPER = "upper", "upper_colour", "pattern", "pattern_colour", "emblem", "emblem_colour"
_LOWER = "lower", "lower_colour", "shoe_colour"
PART_FIELDS: Mapping[str, tuple[str, ...]] = {
    "hair or headwear": _HAIR,
    "face": tuple(field.name for field in fields(Character) if field.name not in {*_HAIR, *_UPPER, *_LOWER}),
    "shoes": _LOWER,
    "upper body clothes": _UPPER,
    "lower body clothes": _LOWER,
    "whole body clothes": (*_UPPER, *_LOWER),
}
"""Part to what of a character it is; shoes come with the lower clothes."""
MAX_DRAWN = 1024  # pixels: parts are cut out of a picture that is larger than they are


def _draw_parts(root: Path, entry: Entry) -> dict[str, Any]:
    """Write a person, and each part cut out of a picture of somebody else who has it; what is not worn is black."""
    stream, size, name = Stream("parts", entry.seed), entry.size, f"{entry.number:06d}"
    target = Scene.from_seeds(entry.character, stream.integer(2**31), view="front", shot="full body")
    is_dress = target.character.lower == "dress"
    row: dict[str, Any] = {"target": f"images/{name}.jpg", "appearance": {}, "mask": {}}
    for label in _HEAD | _CLOTHES:
        if label in _CLOTHES and (label == "whole body clothes") != is_dress:
            part, mask = _nothing(size[1])
        else:
            part, mask = part_picture(_wearer(target.character, entry.character, label, stream), label, size[1])
        folder = label.replace(" or ", "_").replace(" ", "_")
        row["appearance"][label], row["mask"][label] = f"{folder}/{name}.jpg", f"{folder}/{name}_mask.jpg"
        save(part, root / row["appearance"][label])
        save(mask, root / row["mask"][label])
    row["structure"] = {"densepose": f"densepose/{name}.png", "openpose": f"openpose/{name}.png"}
    save(render(target, size), root / row["target"])
    save(dense_picture(dense_map(target, size)), root / row["structure"]["densepose"])
    save(draw_skeleton(keypoints(target, size), size), root / row["structure"]["openpose"])
    return row | {"caption": caption(target, identity=False)}  # who it is, the parts tell


def _wearer(owner: Character, seed: int, label: str, stream: Stream) -> Scene:
    """Somebody else, who has one part of a person; both wear a dress, or neither does."""
    other = other_than(seed, stream)
    while (Character.from_seed(other).lower == "dress") != (owner.lower == "dress"):
        other = other_than(seed, stream)
    scene = Scene.from_seeds(
        other, stream.integer(2**31), view="front", pose=stream.choice(ARM_POSES), shot="full body"
    )
    return replace(scene, character=with_part(scene.character, owner, label))


def with_part(character: Character, owner: Character, label: str) -> Character:
    """A character who has one part of another."""
    return replace(character, **{name: getattr(owner, name) for name in PART_FIELDS[label]})


def part_picture(scene: Scene, label: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A part of a scene's person, cut out as the layout has it: picture (side, side, 3) and mask (side, side) bool."""
    drawn = min(4 * side, MAX_DRAWN)
    return _cut_out(render(scene, drawn), part_mask(segmentation(scene, drawn), *(_HEAD | _CLOTHES)[label]), side)


def _nothing(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture and mask of a part that there is not."""
    return np.zeros((side, side, 3), dtype=np.uint8), np.zeros((side, side), dtype=bool)


def _cut_out(picture: np.ndarray, seen: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The square around a mask, of picture and mask, at so many pixels a side; black outside of the picture."""
    found_picture, found_mask = _nothing(side)
    if not seen.any():
        return found_picture, found_mask
    rows, columns = np.nonzero(seen.any(axis=1))[0], np.nonzero(seen.any(axis=0))[0]
    reach = max(rows[-1] - rows[0], columns[-1] - columns[0]) * 0.55 + 1
    places = np.linspace(-reach, reach, side)
    ys, xs = (np.rint((found[0] + found[-1]) / 2 + places).astype(int) for found in (rows, columns))
    inside = np.ix_(*((each >= 0) & (each < len(picture)) for each in (ys, xs)))
    taken = np.ix_(*(each[(each >= 0) & (each < len(picture))] for each in (ys, xs)))
    found_picture[inside], found_mask[inside] = picture[taken], seen[taken]
    return found_picture, found_mask


def _finish_parts(folder: Path, rows: Rows) -> None:
    save_lists(folder, "{}.jsonl", rows)


PARTS2WHOLE = Layout(draw=_draw_parts, finish=_finish_parts, width=1.0, cast=drawn_cast("parts scenes"))


# --- identities ---------------------------------------------------------------------------------------------------


def _draw_person(root: Path, entry: Entry) -> None:
    """Write a person's pictures, each with its caption and the place of the face beside it."""
    stream, size = Stream("looks", entry.seed), entry.size
    folder = root / entry.split / f"{entry.number:05d}"
    for number in range(LOOKS):
        view, shot = stream.choice(("front", "front", "left", "right")), stream.choice(("portrait", "upper body"))
        scene = Scene.from_seeds(
            entry.character, stream.integer(2**31), view=view, shot=shot, pose=stream.choice(ARM_POSES)
        )
        path = folder / f"{number:02d}.png"
        save(render(scene, size), path)
        path.with_suffix(".txt").write_text(f"{caption(scene, identity=False)}\n")  # who it is, faces tell
        save_json(face_document(scene, size), path.with_suffix(".json"))


def face_document(scene: Scene, size: tuple[int, int]) -> dict[str, Any]:
    """Where a face is, as `refnet preprocess --to face-box` writes it; without a face the list is empty."""
    width, height = picture_size(size)
    box, frames = face_box(scene, size), []
    if box is not None:
        points = landmarks(scene, size)[48:60, :2].clip(0, 1)
        lips = np.concatenate([points.min(axis=0), points.max(axis=0)])
        pixels = [np.rint(each * (width, height, width, height)).astype(int).tolist() for each in (box, lips)]
        frames = [{"box": pixels[0], "lips": pixels[1], "place": np.round(box.astype(float), 4).tolist()}]
    return {"width": width, "height": height, "rate": 25.0, "frames": frames}


def _finish_nothing(folder: Path, rows: Rows) -> None:
    """Such folders have no lists."""
    del folder, rows


IDENTITIES = Layout(draw=_draw_person, finish=_finish_nothing, width=1.0, cast=drawn_cast("identities"))


# --- views --------------------------------------------------------------------------------------------------------


def _draw_views(root: Path, entry: Entry) -> None:
    """Write a person from all cameras, and from each another person's head."""
    stream, folder = Stream("views", entry.seed), root / entry.split / f"{entry.number:05d}"
    portrait = Scene.from_seeds(
        entry.character,
        stream.integer(2**31),
        pose=Pose(),
        expression=Expression.from_seed(stream.integer(2**31)),
        background=Background.from_seed(stream.integer(2**31)),
        camera=Camera(shot="portrait"),
    )
    head = Scene.from_seeds(
        other_than(entry.character, stream), 0, pose=Pose(), expression="neutral", camera=portrait.camera,
        background=Background(colour="grey"),
    )  # fmt: skip
    for number, camera in enumerate(CAMERAS):
        for kind, scene in (("views", portrait), ("cameras", head)):
            save(render(seen_from(scene, camera), entry.size), folder / kind / f"{number:02d}.png")


VIEWS = Layout(draw=_draw_views, finish=_finish_nothing, width=1.0, cast=drawn_cast("views scenes"))
