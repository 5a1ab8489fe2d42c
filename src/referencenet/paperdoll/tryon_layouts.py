"""Layouts of people and garments: VITON-HD's, and with more pictures of each garment StableGarment's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from referencenet.paperdoll.captions import attributes, caption
from referencenet.paperdoll.character import Character
from referencenet.paperdoll.entries import Entry, Layout, Rows, by_split, other_than, people, save, save_json
from referencenet.paperdoll.maps import PARTS, dense_map, dense_picture, segmentation
from referencenet.paperdoll.pose import ARM_POSES
from referencenet.paperdoll.render import picture_size, render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.skeleton import draw_skeleton, keypoints
from referencenet.paperdoll.streams import Stream
from referencenet.paperdoll.tryon import GREY, agnostic_mask, flat_lay, flat_lay_mask

# LIP's twenty labels, with which VITON-HD is parsed; 10 (there: skin of neck and chest) is the neck.
_LIP = {
    "hat": 1,
    "hair": 2,
    "glasses": 4,
    "upper garment": 5,
    "neck": 10,
    "right ear": 13,
    "left ear": 13,
    "face": 13,
    "right eye": 13,
    "left eye": 13,
    "nose": 13,
    "mouth": 13,
    "beard": 13,
    "left arm": 14,
    "right arm": 15,
    "left hand": 14,
    "right hand": 15,
    "left leg": 16,
    "right leg": 17,
    "left shoe": 18,
    "right shoe": 19,
}
_LIP_WEAR = {"trousers": 9, "shorts": 9, "skirt": 12, "dress": 6, "jacket": 7}
# Where OpenPose's BODY_25 keeps the 18 points; 8 is the middle of the hips, the feet (19-24) are left out.
_BODY_25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
_SLEEVES = {"tank": "Sleeveless", "t-shirt": "Short Sleeve"}
_GARMENT = ("upper", "upper_colour", "pattern", "pattern_colour", "emblem", "emblem_colour", "lower", "lower_colour")
MORE = 2
"""Pictures of other people in a garment, of StableGarment's."""


def wearing(character: Character, other: Character) -> Character:
    """A character in the clothes of another."""
    return replace(character, **{name: getattr(other, name) for name in _GARMENT})


def lip_labels(scene: Scene, parts: np.ndarray) -> np.ndarray:
    """Translate a segmentation (H, W) of a scene into LIP's labels; (H, W) uint8."""
    who = scene.character
    labels = _LIP | {"lower garment": _LIP_WEAR.get(who.lower, 9)}
    labels["upper garment"] = _LIP_WEAR["dress"] if who.lower == "dress" else _LIP_WEAR.get(who.upper, 5)
    return np.array([labels.get(name, 0) for name in PARTS], dtype=np.uint8)[parts]


def openpose_json(points: np.ndarray, width: int, height: int) -> dict[str, object]:
    """Write key points, (18, 3) as `keypoints` gives them, as OpenPose's BODY_25 file does: pixels, 0 if unseen."""
    body = np.zeros((25, 3))
    body[list(_BODY_25)] = points * (width, height, 1)
    body[8] = (body[9] + body[12]) / 2 if body[9, 2] and body[12, 2] else 0
    body[body[:, 2] == 0] = 0
    person = {"person_id": [-1], "pose_keypoints_2d": [round(float(value), 3) for value in body.ravel()]}
    empty = {f"{part}_keypoints_2d": [] for part in ("face", "hand_left", "hand_right")}
    return {"version": 1.3, "people": [person | empty]}


def garment_tags(who: Character) -> list[dict[str, str | None]]:
    """What VITON-HD's tags tell of the upper garment (or the dress); None: what no drawing shows."""
    told = {
        "item": "dress" if who.lower == "dress" else who.upper,
        "sleeveLength": _SLEEVES.get(who.upper, "Long Sleeve"),
        "neckLine": "hood" if who.upper == "hoodie" and who.lower != "dress" else None,
        "colors": who.upper_colour,
        "prints": None if who.pattern == "plain" else f"{who.pattern} {who.pattern_colour}",
        "details": None if who.emblem == "none" else f"{who.emblem_colour} {who.emblem}",
    }
    return [{"tag_name": name, "tag_category": value} for name, value in told.items()]


def _viton_cast(seed: int, count: int) -> Iterator[tuple[int, int, str]]:
    return ((character, seed, part) for character, part in people(seed, count))


def _scene(entry: Entry, aspect: str = "viton") -> Scene:
    """A person from the front before a plain background, whose arms may be anywhere."""
    stream = Stream(f"{aspect} {entry.number}", entry.seed)
    shot = "upper body" if stream.chance(0.6) else "full body"
    pose = stream.choice(ARM_POSES)
    scene = stream.integer(2**31)
    return Scene.from_seeds(entry.character, scene, view="front", pose=pose, shot=shot, background="plain")


def _draw_viton(root: Path, entry: Entry) -> dict[str, Any]:
    """Write a person with all annotations; the name, the garment's tags, and what is said of both."""
    scene, size, folder, name = _scene(entry), entry.size, root / entry.split, f"{entry.number:05d}_00"
    points, parts = keypoints(scene, size), segmentation(scene, size)
    picture, hidden = render(scene, size), agnostic_mask(scene, size)
    labels = lip_labels(scene, parts)
    save(picture, folder / "image" / f"{name}.jpg")
    save(flat_lay(scene.character, size), folder / "cloth" / f"{name}.jpg")
    save(flat_lay_mask(scene.character, size), folder / "cloth-mask" / f"{name}.jpg")
    _save_labels(labels, folder / "image-parse-v3" / f"{name}.png")
    _save_labels(np.where(hidden, 0, labels).astype(np.uint8), folder / "image-parse-agnostic-v3.2" / f"{name}.png")
    save(draw_skeleton(points, size), folder / "openpose_img" / f"{name}_rendered.png")
    save(dense_picture(dense_map(scene, size)), folder / "image-densepose" / f"{name}.jpg")
    save(np.where(hidden[..., None], np.uint8(GREY), picture), folder / "agnostic-v3.2" / f"{name}.jpg")
    save(hidden, folder / "agnostic-mask" / f"{name}_mask.png")
    save_json(openpose_json(points, *picture_size(size)), folder / "openpose_json" / f"{name}_keypoints.json")
    return {
        "file_name": f"{name}.jpg",
        "tag_info": garment_tags(scene.character),
        "captions": {f"{name}.jpg": caption(scene)},
        "garment": attributes(scene)["upper"],
    }


def _save_labels(labels: np.ndarray, path: Path) -> None:
    """Write a label map as a palette picture, which reads back as its numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    tones = [(97 * i % 256, 151 * i % 256, 211 * i % 256) for i in range(20)]
    image.putpalette([channel for tone in tones for channel in tone])
    image.save(path)


def _save_pairs(folder: Path, rows: Rows) -> None:
    for part, told in by_split(rows).items():
        names = [row["file_name"] for row in told]
        garments = names if part == "train" else names[1:] + names[:1]  # as published, tests try on another's garment
        lines = "".join(f"{person} {garment}\n" for person, garment in zip(names, garments, strict=True))
        (folder / f"{part}_pairs.txt").write_text(lines)


def _finish_viton(folder: Path, rows: Rows) -> None:
    """Write each split's pairs and tags."""
    _save_pairs(folder, rows)
    for part, told in by_split(rows).items():
        tags = [{name: row[name] for name in ("file_name", "tag_info")} for row in told]
        if tags:
            save_json({"data": tags}, folder / part / f"vitonhd_{part}_tagged.json", 1)


def _draw_more(root: Path, entry: Entry) -> dict[str, Any]:
    """Write the same, and other people in the garment, with what they show."""
    told, name = _draw_viton(root, entry), f"{entry.number:05d}_00"
    stream, garment = Stream(f"stable garment {entry.number}", entry.seed), Character.from_seed(entry.character)
    for number in range(1, MORE + 1):
        person = replace(entry, character=other_than(entry.character, stream))
        scene = _scene(person, f"stable garment {number}")
        scene = replace(scene, character=wearing(scene.character, garment))
        file = f"{name}@@{number}.jpg"
        save(render(scene, entry.size), root / entry.split / "image" / file)
        told["captions"][file] = caption(scene)
    return told


def _finish_more(folder: Path, rows: Rows) -> None:
    """Write pairs, those of training with the pictures that show a garment on others, and captions."""
    _save_pairs(folder, rows)
    lines = [f"{name} {row['file_name']}\n" for row in by_split(rows)["train"] for name in row["captions"]]
    (folder / "train_pairs.txt").write_text("".join(lines))
    for part, told in by_split(rows).items():
        if told:
            captions = {name: text for row in told for name, text in row["captions"].items()}
            save_json(captions, folder / part / "image_captions.json", 1)
            garments = {row["file_name"]: row["garment"] for row in told}
            save_json(garments, folder / part / "garment_captions.json", 1)


VITON_HD = Layout(draw=_draw_viton, finish=_finish_viton, width=3 / 4, cast=_viton_cast)
STABLE_GARMENT = Layout(draw=_draw_more, finish=_finish_more, width=3 / 4, cast=_viton_cast)
