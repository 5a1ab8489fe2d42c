"""Data-set folders in the layouts that the field's loaders read: pictures, films, sound and every annotation.

`viton-hd` as HR-VITON and its successors read VITON-HD, `ubc` as Moore-AnimateAnyone reads UBC fashion films, `tiktok`
as the TikTok data set comes, `hdtf` as Hallo prepares HDTF, `flat` as an image folder of Hugging Face datasets.
A folder is there whole or not at all: everything is written beside it and renamed at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from referencenet.paperdoll.captions import attributes, caption
from referencenet.paperdoll.character import split
from referencenet.paperdoll.film_layouts import FilmClip, write_hdtf, write_tiktok, write_ubc
from referencenet.paperdoll.landmarks import face_box, landmarks
from referencenet.paperdoll.maps import PARTS, dense_map, dense_picture, segmentation
from referencenet.paperdoll.pose import ARM_POSES
from referencenet.paperdoll.render import picture_size, render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.skeleton import draw_skeleton, keypoints
from referencenet.paperdoll.streams import Stream
from referencenet.paperdoll.tryon import agnostic, agnostic_mask, flat_lay, flat_lay_mask

Progress = Callable[[int, int], None]
Writer = Callable[[Path, int, int, int, Progress], None]  # folder, count, size, seed, progress

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


def write_dataset(
    out: str | os.PathLike[str],
    count: int,
    layout: str,
    size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write a data set of the world.

    Args:
        out: The folder to make; it must not exist, or be empty.
        count: How many pictures (`viton-hd`: pairs of person and garment; films: clips).
        layout: `viton-hd`, `ubc`, `tiktok`, `hdtf` or `flat`.
        size: Height of a picture in pixels, even, 64 to 512; the width is what the layout's own pictures have.
        seed: Which characters and scenes; every fifth picture or clip shows a character of the test split.
        progress: Called with (done, count) after each.

    Returns:
        The folder.

    Raises:
        FileExistsError: There is something in `out`.
        ValueError: Layout, count or size are not as above.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; expected one of {', '.join(sorted(LAYOUTS))}")
    if count < 1:
        raise ValueError(f"count is {count}; expected at least 1 picture or clip")
    if size % 2 or not 64 <= size <= 512:
        raise ValueError(f"size is {size}; expected an even number of pixels from 64 to 512")
    Stream("dataset", seed)  # refuses what is no seed before anything is written
    with _written_whole(Path(out)) as folder:
        LAYOUTS[layout](folder, count, size, seed, progress or _silent)
    return Path(out)


def _silent(done: int, count: int) -> None:
    del done, count


@contextmanager
def _written_whole(out: Path) -> Generator[Path]:
    """Give a folder to write to; it takes the place of `out` when the block ends without an exception."""
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        kind = "a folder that is not empty" if out.is_dir() else "a file"
        raise FileExistsError(f"{out} is {kind}; expected a new or an empty folder. Name another, or clear it first.")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{uuid.uuid4().hex[:12]}-{out.name}")
    temporary.mkdir()
    try:
        yield temporary
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _cast(seed: int, count: int) -> Iterator[tuple[int, int, str]]:
    """Give number, character and split of each picture: every fifth is a test character, the others train."""
    stream = Stream("dataset", seed)
    for number in range(count):
        wanted = "test" if number % 5 == 4 else "train"
        character = stream.integer(2**31)
        while split(character) != wanted:
            character = stream.integer(2**31)
        yield number, character, wanted


def _save(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture.astype(np.uint8) * 255 if picture.dtype == bool else picture)
    image.save(path, quality=95, subsampling=0) if path.suffix == ".jpg" else image.save(path)


def _save_labels(labels: np.ndarray, path: Path) -> None:
    """Write a label map as a palette picture, which reads back as its numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    tones = [(97 * i % 256, 151 * i % 256, 211 * i % 256) for i in range(20)]
    image.putpalette([channel for tone in tones for channel in tone])
    image.save(path)


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


def _even(pixels: float) -> int:
    return max(16, 2 * round(pixels / 2))


def _write_viton(folder: Path, count: int, size: int, seed: int, progress: Progress) -> None:
    pairs: dict[str, list[str]] = {"train": [], "test": []}
    for number, character, part in _cast(seed, count):
        name = f"{number:05d}_00"
        _write_pair(folder / part, name, _viton_scene(character, seed, number), (_even(size * 3 / 4), size))
        pairs[part].append(f"{name}.jpg")
        progress(number + 1, count)
    for part, names in pairs.items():
        garments = names if part == "train" else names[1:] + names[:1]  # as published, tests try on another's garment
        lines = "".join(f"{person} {garment}\n" for person, garment in zip(names, garments, strict=True))
        (folder / f"{part}_pairs.txt").write_text(lines)


def _viton_scene(character: int, seed: int, number: int) -> Scene:
    stream = Stream(f"viton {number}", seed)
    shot = "upper body" if stream.chance(0.6) else "full body"
    pose = stream.choice(ARM_POSES)
    return Scene.from_seeds(character, stream.integer(2**31), view="front", pose=pose, shot=shot, background="plain")


def _write_pair(folder: Path, name: str, scene: Scene, size: tuple[int, int]) -> None:
    width, height = picture_size(size)
    points, parts = keypoints(scene, size), segmentation(scene, size)
    hidden = agnostic_mask(scene, size)
    labels = lip_labels(scene, parts)
    _save(render(scene, size), folder / "image" / f"{name}.jpg")
    _save(flat_lay(scene.character, size), folder / "cloth" / f"{name}.jpg")
    _save(flat_lay_mask(scene.character, size), folder / "cloth-mask" / f"{name}.jpg")
    _save_labels(labels, folder / "image-parse-v3" / f"{name}.png")
    _save_labels(np.where(hidden, 0, labels).astype(np.uint8), folder / "image-parse-agnostic-v3.2" / f"{name}.png")
    _save(draw_skeleton(points, size), folder / "openpose_img" / f"{name}_rendered.png")
    _save(dense_picture(dense_map(scene, size)), folder / "image-densepose" / f"{name}.jpg")
    _save(agnostic(scene, size), folder / "agnostic-v3.2" / f"{name}.jpg")
    _save(hidden, folder / "agnostic-mask" / f"{name}_mask.png")
    path = folder / "openpose_json" / f"{name}_keypoints.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(openpose_json(points, width, height)))


def _write_flat(folder: Path, count: int, size: int, seed: int, progress: Progress) -> None:
    """Two pictures of each character, one after the other, so that the one can be the other's reference."""
    cast = list(_cast(seed, (count + 1) // 2))
    scenes = Stream("flat scenes", seed)
    for number in range(count):
        _, character, part = cast[number // 2]
        scene = Scene.from_seeds(character, scenes.integer(2**31))
        name = f"{number:06d}.png"
        points, box = keypoints(scene, size), face_box(scene, size)
        _save(render(scene, size), folder / part / name)
        _save(draw_skeleton(points, size), folder / "annotations" / f"{number:06d}_skeleton.png")
        _save(segmentation(scene, size), folder / "annotations" / f"{number:06d}_parts.png")
        _save(dense_map(scene, size), folder / "annotations" / f"{number:06d}_dense.png")
        row = {
            "file_name": name,
            "text": caption(scene),
            "text_without_identity": caption(scene, identity=False),
            "character": character,
            "attributes": attributes(scene),
            "keypoints": np.round(points.astype(float), 5).tolist(),
            "landmarks": np.round(landmarks(scene, size).astype(float), 5).tolist(),
            "face_box": None if box is None else np.round(box.astype(float), 5).tolist(),
        }
        with (folder / part / "metadata.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        progress(number + 1, count)


def _films(write: Callable[[Path, FilmClip], None], width: float) -> Writer:
    """Make a writer of clips of the given width (as a share of the height)."""

    def writer(folder: Path, count: int, size: int, seed: int, progress: Progress) -> None:
        films = Stream("film seeds", seed)
        for number, character, part in _cast(seed, count):
            write(folder, FilmClip(number, character, films.integer(2**31), part, (_even(size * width), size)))
            progress(number + 1, count)

    return writer


LAYOUTS: dict[str, Writer] = {
    "viton-hd": _write_viton,
    "ubc": _films(write_ubc, 3 / 4),
    "tiktok": _films(write_tiktok, 9 / 16),
    "hdtf": _films(write_hdtf, 1.0),
    "flat": _write_flat,
}
