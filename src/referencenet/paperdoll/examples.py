"""A folder of things to try commands on: one character, drawn for every command, with everything exact.

| file | what it is | pixels |
|---|---|---|
| `hero.png`, `hero_mask.png` | a character, and where it is seen | 256 x 256 |
| `friend.png` | another character | 256 x 256 |
| `skeleton.png` | the hero's OpenPose skeleton, waving | 256 x 256 |
| `portrait.png` | the hero's face | 256 x 256 |
| `person.png`, `densepose.png` | the hero to dress, and its DensePose | 384 x 512 |
| `person_mask.png` | where the person is repainted | 384 x 512 |
| `garment.png` | what the friend wears, lying flat on white | 384 x 512 |
| `face.png`, `shirt.png` | the hero's head and garment, cut out | 256 x 256 |
| `dance.mp4`, `densepose.mp4` | two seconds of poses, as skeletons and as DensePose | 256 x 256 |
| `voice.wav` | two seconds of a voice, 16 kHz | |
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count as counted_from
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from referencenet.media.sheets import write_image
from referencenet.paperdoll.character import Character, split
from referencenet.paperdoll.film import dance
from referencenet.paperdoll.maps import HEAD, dense_map, dense_picture, part_mask, segmentation
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.render import Size, render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.skeleton import skeleton
from referencenet.paperdoll.tryon import agnostic_mask, flat_lay
from referencenet.paperdoll.video import write_video, write_wav
from referencenet.paperdoll.voice import SAMPLE_RATE, speech

SQUARE, UPRIGHT = 256, (384, 512)
SECONDS, FPS = 2, 12
PLAIN = {"view": "front", "background": "plain", "expression": "smiling"}
UNSEEN = 1_000_000
"""From here on characters are looked for that the built-in model has not learned from."""


def write_examples(folder: Path, seed: int = 0, *, record: Mapping[str, Any] | None = None) -> list[Path]:
    """Write the files of the table above; the same seed writes the same pictures.

    Args:
        folder: Where to; made if it is missing. Files of these names are replaced.
        seed: Of the characters, and of everything else.
        record: What decided them, to stand in every picture and film, see `media.records`.

    Returns:
        The files.
    """
    hero, friend = unseen(2, seed)
    pictures = _squares(hero, friend, seed) | _to_dress(hero, friend, seed)
    written: list[Path] = []
    for name, picture in pictures.items():
        written.append(write_image(Image.fromarray(picture), folder / f"{name}.png", record))
    film = dance(hero, seed, num_frames=SECONDS * FPS, fps=FPS)
    drawn = {"dance": skeleton, "densepose": _densepose}
    written += [
        write_video(folder / f"{name}.mp4", [draw(scene, SQUARE) for scene in film.scenes], FPS, record=record)
        for name, draw in drawn.items()
    ]
    return [*written, write_wav(folder / "voice.wav", speech(seed, SECONDS), SAMPLE_RATE)]


def unseen(count: int, seed: int) -> list[int]:
    """Seeds of characters of the test split."""
    return list(islice((each for each in counted_from(UNSEEN + 10_000 * seed) if split(each) == "test"), count))


def _squares(hero: int, friend: int, seed: int) -> dict[str, np.ndarray]:
    """The hero and the friend standing, the hero's skeleton waving, its face, and parts of it."""
    standing = Scene.from_seeds(hero, seed, shot="full body", pose="standing", **PLAIN)
    other = Scene.from_seeds(friend, seed, shot="full body", pose="standing", **PLAIN)
    waving = Scene(character=standing.character, pose=Pose.named("waving"))
    near = Scene.from_seeds(hero, seed, shot="portrait", pose="standing", **PLAIN)
    close = Scene.from_seeds(hero, seed, shot="upper body", pose="standing", **PLAIN)
    picture, parts = render(close, SQUARE), segmentation(close, SQUARE)
    return {
        "hero": render(standing, SQUARE),
        "hero_mask": _white(segmentation(standing, SQUARE) > 0),
        "friend": render(other, SQUARE),
        "skeleton": skeleton(waving, SQUARE),
        "portrait": render(near, SQUARE),
        "face": np.dstack((picture, _white(part_mask(parts, *HEAD)))),
        "shirt": np.dstack((picture, _white(part_mask(parts, "upper garment")))),
    }


def _to_dress(hero: int, friend: int, seed: int) -> dict[str, np.ndarray]:
    """What a try-on is given: person, where it is repainted, DensePose, and the garment."""
    person = Scene.from_seeds(hero, seed, shot="full body", pose="standing", **PLAIN)
    return {
        "person": render(person, UPRIGHT),
        "person_mask": _white(agnostic_mask(person, UPRIGHT)),
        "densepose": _densepose(person, UPRIGHT),
        "garment": flat_lay(Character.from_seed(friend), UPRIGHT),
    }


def _densepose(scene: Scene, size: Size) -> np.ndarray:
    return dense_picture(dense_map(scene, size))


def _white(mask: np.ndarray) -> np.ndarray:
    """White where a mask (H, W) is true; uint8."""
    return np.where(mask, 255, 0).astype(np.uint8)
