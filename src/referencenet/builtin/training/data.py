"""Paperdoll pictures for training: drawn once into memory-mapped files, read by number.

A set is a folder: `pictures.npy` and `skeletons.npy` (count, size, size, 3) uint8, `keypoints.npy` (count, 18, 3)
float32, `records.jsonl` with one scene a line. The pictures of one character stand together, `scenes` each.
`set.json` is written last: a folder without it is not whole and is drawn anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from referencenet.paperdoll.captions import attributes, caption
from referencenet.paperdoll.character import split
from referencenet.paperdoll.maps import segmentation
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.skeleton import draw_skeleton, keypoints

_ARRAYS = ("pictures", "skeletons", "keypoints", "parts")


def character_seeds(which: str, number: int, start: int = 0) -> list[int]:
    """The first `number` character seeds from `start` on that belong to a split: train, validation or test."""
    return list(islice((seed for seed in count_from(start) if split(seed) == which), number))


def scene_seed(seed: int, character: int, index: int) -> int:
    """The scene seed of a character's picture: another for every picture of every set."""
    return (seed * 7_368_787 + character * 1_000 + index) % 2**31


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """A drawn set, read by number.

    Attributes:
        pictures: (count, size, size, 3) uint8.
        skeletons: The same shape.
        keypoints: (count, 18, 3) float32: x, y in [0, 1], visibility.
        parts: (count, size, size) uint8: which part every pixel shows, as `paperdoll.segmentation` numbers them.
        records: Per picture: character, scene, caption, plain (the caption without identity), attributes.
        scenes: Pictures of one character.
    """

    pictures: np.ndarray
    skeletons: np.ndarray
    keypoints: np.ndarray
    parts: np.ndarray
    records: list[dict[str, Any]]
    scenes: int

    @classmethod
    def open(cls, folder: Path) -> PictureSet:
        """Read a set that `draw_set` made.

        Raises:
            FileNotFoundError: If there is no whole set.
        """
        described = folder / "set.json"
        if not described.is_file():
            raise FileNotFoundError(f"there is no whole picture set in {folder}; draw one with draw_set.")
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS]
        with (folder / "records.jsonl").open(encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        scenes = int(json.loads(described.read_text())["scenes"])
        pictures, skeletons, points, parts = arrays
        return cls(
            pictures=pictures, skeletons=skeletons, keypoints=points, parts=parts, records=records, scenes=scenes
        )

    def __len__(self) -> int:
        return len(self.records)

    @property
    def whole(self) -> Tensor:
        """(count,) bool, which pictures show whole figures."""
        return torch.tensor([record["attributes"]["shot"] == "full body" for record in self.records])

    def together(self, number: int, size: int, generator: torch.Generator, allowed: Tensor | None = None) -> Tensor:
        """Different pictures of one character each: (number, size) indices, a row per character.

        Args:
            number: Of characters.
            size: Pictures of each.
            generator: Of the choice.
            allowed: (count,) bool, which pictures may be chosen; characters with too few are left out. None: all.

        Raises:
            ValueError: If no character has so many.
        """
        allowed = torch.ones(len(self), dtype=torch.bool) if allowed is None else allowed
        table = allowed.view(-1, self.scenes).float()
        characters = torch.nonzero(table.sum(dim=1) >= size).flatten()
        if not len(characters):
            raise ValueError(
                f"no character of this set has {size} pictures to choose from ({self.scenes} scenes each, "
                f"{int(table.sum())} of {len(self)} pictures allowed); draw more scenes of each."
            )
        chosen = characters[torch.randint(len(characters), (number,), generator=generator)]
        return chosen[:, None] * self.scenes + torch.multinomial(table[chosen], size, generator=generator)


def draw_set(
    folder: Path,
    *,
    which: str = "train",
    characters: int = 4000,
    scenes: int = 6,
    size: int = 64,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> PictureSet:
    """Draw a set, or open it where it is there already.

    Args:
        folder: Where.
        which: Split of the characters.
        characters: How many.
        scenes: Pictures of each.
        size: Side of the pictures in pixels.
        seed: Of the scenes.
        workers: Processes.
        progress: Called with (done, all).
    """
    wanted = {"which": which, "characters": characters, "scenes": scenes, "size": size, "seed": seed}
    described = folder / "set.json"
    if described.is_file() and json.loads(described.read_text()) == wanted:
        return PictureSet.open(folder)
    described.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    number = characters * scenes
    shape = (number, size, size, 3)
    pictures = np.lib.format.open_memmap(folder / "pictures.npy", mode="w+", dtype=np.uint8, shape=shape)
    skeletons = np.lib.format.open_memmap(folder / "skeletons.npy", mode="w+", dtype=np.uint8, shape=shape)
    points = np.lib.format.open_memmap(folder / "keypoints.npy", mode="w+", dtype=np.float32, shape=(number, 18, 3))
    parts = np.lib.format.open_memmap(folder / "parts.npy", mode="w+", dtype=np.uint8, shape=shape[:3])
    done = 0
    with (folder / "records.jsonl").open("w", encoding="utf-8") as file:
        for chunk in _drawn(character_seeds(which, characters), scenes, size, seed, workers):
            end = done + len(chunk[4])
            pictures[done:end], skeletons[done:end], points[done:end], parts[done:end] = chunk[:4]
            file.writelines(json.dumps(record) + "\n" for record in chunk[4])
            done = end
            if progress:
                progress(done, number)
    for array in (pictures, skeletons, points, parts):
        array.flush()
    described.write_text(json.dumps(wanted))
    return PictureSet.open(folder)


Chunk = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]


def _drawn(characters: list[int], scenes: int, size: int, seed: int, workers: int) -> Iterator[Chunk]:
    """The set in chunks, in order."""
    jobs = [(characters[i : i + 8], scenes, size, seed) for i in range(0, len(characters), 8)]
    if workers <= 1:
        yield from map(_draw_chunk, jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_draw_chunk, jobs)


def _draw_chunk(job: tuple[list[int], int, int, int]) -> Chunk:
    """All pictures of a few characters."""
    characters, scenes, size, seed = job
    pictures, skeletons, points, parts, records = [], [], [], [], []
    for character in characters:
        for index in range(scenes):
            number = scene_seed(seed, character, index)
            scene = Scene.from_seeds(character, number)
            pictures.append(render(scene, size))
            points.append(keypoints(scene, size))
            skeletons.append(draw_skeleton(points[-1], size))
            parts.append(segmentation(scene, size))
            records.append({
                "character": character,
                "scene": number,
                "caption": caption(scene),
                "plain": caption(scene, identity=False),
                "attributes": attributes(scene),
            })  # fmt: skip
    return np.stack(pictures), np.stack(skeletons), np.stack(points), np.stack(parts), records


def to_tensors(pictures: np.ndarray) -> Tensor:
    """(count, height, width, 3) uint8 to (count, 3, height, width) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def skeletons_to_tensors(skeletons: np.ndarray) -> Tensor:
    """(count, height, width, 3) uint8 to (count, 3, height, width) float32 in [0, 1]."""
    return torch.from_numpy(skeletons).permute(0, 3, 1, 2).float() / 255


def tensors_to_pictures(tensors: Tensor) -> np.ndarray:
    """(count, 3, height, width) in [-1, 1] to (count, height, width, 3) uint8."""
    scaled = tensors.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
