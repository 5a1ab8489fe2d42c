"""What data-set layouts share: what one entry of a data set is, who is in it, and how pictures and lists are saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from referencenet.paperdoll.character import split
from referencenet.paperdoll.streams import Stream


@dataclass(frozen=True)
class Entry:
    """One entry: its number, who it shows, the seed of all the rest, its split, and (width, height) in pixels.

    Of talking heads also how far they sway, see `film.talk`.
    """

    number: int
    character: int
    seed: int
    split: str
    size: tuple[int, int]
    sway: float = 1.0


Rows = list[tuple[Entry, Any]]
"""Entries in their order, each with what `draw` gave of it."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A layout.

    Attributes:
        draw: Writes an entry's files below a folder, and gives what the lists say of it.
        finish: Writes the lists.
        width: Of a picture, as a share of its height.
        cast: From the data set's seed and a count to (character, seed, split) of each entry.
    """

    draw: Callable[[Path, Entry], Any]
    finish: Callable[[Path, Rows], None]
    width: float
    cast: Callable[[int, int], Iterator[tuple[int, int, str]]]

    def entries(self, seed: int, count: int, height: int) -> list[Entry]:
        """All entries of a data set."""
        size = max(16, 2 * round(height * self.width / 2)), height
        return [Entry(number, *told, size) for number, told in enumerate(self.cast(seed, count))]


def people(seed: int, count: int) -> Iterator[tuple[int, str]]:
    """Characters with their split: every fifth is a test character, the others train."""
    stream = Stream("dataset", seed)
    for number in range(count):
        wanted = "test" if number % 5 == 4 else "train"
        character = stream.integer(2**31)
        while split(character) != wanted:
            character = stream.integer(2**31)
        yield character, wanted


def drawn_cast(aspect: str) -> Callable[[int, int], Iterator[tuple[int, int, str]]]:
    """A cast whose entries have seeds of the stream of an aspect."""

    def cast(seed: int, count: int) -> Iterator[tuple[int, int, str]]:
        seeds = Stream(aspect, seed)
        return ((character, seeds.integer(2**31), part) for character, part in people(seed, count))

    return cast


def other_than(character: int, stream: Stream) -> int:
    """Another character of the same split."""
    other = stream.integer(2**31)
    while other == character or split(other) != split(character):
        other = stream.integer(2**31)
    return other


def save(picture: np.ndarray, path: Path) -> None:
    """Write a picture; of a bool mask black and white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture.astype(np.uint8) * 255 if picture.dtype == bool else picture)
    image.save(path, quality=95, subsampling=0) if path.suffix == ".jpg" else image.save(path)


def save_array(array: np.ndarray, path: Path) -> None:
    """Write an `.npy` file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def save_json(content: Any, path: Path, indent: int | None = None) -> None:
    """Write a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=indent))


def by_split(rows: Rows) -> dict[str, list[Any]]:
    """What the lists say, by split."""
    return {part: [row for entry, row in rows if entry.split == part] for part in ("train", "test")}


def save_lines(folder: Path, name: str, rows: Rows) -> None:
    """Write one list for each split that has entries.

    Args:
        folder: Of the data set.
        name: Of the file, with `{}` for the split; lines of a `.jsonl` file are JSON, others text.
        rows: Texts or JSON values.
    """
    for part, told in by_split(rows).items():
        lines: Sequence[str] = told if not name.endswith(".jsonl") else [json.dumps(row) for row in told]
        if lines:
            path = folder / name.format(part)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines))
