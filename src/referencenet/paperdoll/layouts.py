"""Data-set folders in the layouts that the field's loaders read: pictures, films, sound and every annotation.

`viton-hd` as HR-VITON and its successors read VITON-HD, `stable-garment` the same with the pictures that StableGarment
learns from beside it, `ubc` as Moore-AnimateAnyone reads UBC fashion films, `tiktok` as the TikTok data set comes,
`hdtf` as Hallo prepares HDTF, `aniportrait` as its JSON lists films, `parts2whole` as its JSON lines do, `identities` a
folder for each person, `views` a person from several cameras, `flat` as an image folder of Hugging Face datasets.
A folder is there whole or not at all: everything is written beside it and renamed at the end.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from referencenet.paperdoll.entries import Entry, Layout
from referencenet.paperdoll.film_layouts import TIKTOK, UBC
from referencenet.paperdoll.picture_layouts import FLAT, IDENTITIES, PARTS2WHOLE, VIEWS
from referencenet.paperdoll.portrait_layouts import ANIPORTRAIT, HDTF, Embed, Hear, add_features
from referencenet.paperdoll.streams import Stream
from referencenet.paperdoll.tryon_layouts import STABLE_GARMENT, VITON_HD

Progress = Callable[[int, int], None]

LAYOUTS: Mapping[str, Layout] = {
    "viton-hd": VITON_HD,
    "stable-garment": STABLE_GARMENT,
    "ubc": UBC,
    "tiktok": TIKTOK,
    "hdtf": HDTF,
    "aniportrait": ANIPORTRAIT,
    "parts2whole": PARTS2WHOLE,
    "identities": IDENTITIES,
    "views": VIEWS,
    "flat": FLAT,
}
"""By name."""
TALKING = "hdtf", "aniportrait"
"""Those whose heads talk."""


def write_dataset(
    out: str | os.PathLike[str],
    count: int,
    layout: str,
    size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    workers: int = 1,
    hear: Hear | None = None,
    embed: Embed | None = None,
    sway: float = 1.0,
) -> Path:
    """Write a data set of the world.

    Args:
        out: The folder to make; it must not exist, or be empty.
        count: How many pictures (`viton-hd`, `stable-garment`: pairs of person and garment; `ubc`, `tiktok`, `hdtf`,
            `aniportrait`: clips; `identities`, `views`: people).
        layout: One of `LAYOUTS`.
        size: Height of a picture in pixels, even, 64 to 512; the width is what the layout's own pictures have.
        seed: Which characters and scenes; every fifth entry shows a character of the test split.
        progress: Called with (done, count) after each.
        workers: Processes that draw; the files are the same with any number.
        hear: Of `hdtf`: from sound (samples,) at 16 kHz and a number of frames to features (frames, layers, channels),
            which are written to `speech/`; None: there are none.
        embed: Of `hdtf`: from a frame (height, width, 3) uint8 to an embedding of the face (channels,), which is
            written to `face_emb/`; None: there are none.
        sway: Of `hdtf` and `aniportrait`: how far heads move, from 0, where they keep still, to 1.

    Returns:
        The folder.

    Raises:
        FileExistsError: There is something in `out`.
        ValueError: Layout, count, size, workers or sway are not as above, or features or a sway are asked of another
            layout.
    """
    _check(layout, count, size, workers, sway, features=bool(hear or embed))
    Stream("dataset", seed)  # refuses what is no seed before anything is written
    chosen = LAYOUTS[layout]
    entries = [replace(entry, sway=sway) for entry in chosen.entries(seed, count, size)]
    with _written_whole(Path(out)) as folder:
        rows: list[tuple[Entry, Any]] = []
        for entry, row in zip(entries, _drawn(layout, folder, entries, workers), strict=True):
            if hear or embed:
                add_features(folder, entry, hear, embed)
            rows.append((entry, row))
            if progress:
                progress(len(rows), count)
        chosen.finish(folder, rows)
    return Path(out)


def _check(layout: str, count: int, size: int, workers: int, sway: float, *, features: bool) -> None:
    """Raises ValueError where `write_dataset` says so."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; expected one of {', '.join(sorted(LAYOUTS))}")
    if count < 1:
        raise ValueError(f"count is {count}; expected at least 1 picture or clip")
    if size % 2 or not 64 <= size <= 512:
        raise ValueError(f"size is {size}; expected an even number of pixels from 64 to 512")
    if workers < 1:
        raise ValueError(f"workers is {workers}; expected at least 1 process")
    if features and layout != "hdtf":
        raise ValueError(f"layout is {layout!r}, which has no features of sound or faces; expected 'hdtf'")
    if not 0 <= sway <= 1:
        raise ValueError(f"sway is {sway}; expected a share from 0 to 1")
    if layout not in TALKING and sway != 1:
        raise ValueError(f"layout is {layout!r}, where no head talks; expected {' or '.join(TALKING)} with a sway")


def _drawn(layout: str, folder: Path, entries: list[Entry], workers: int) -> Iterator[Any]:
    """Draw entries, in order; what the lists say of each."""
    draw = partial(_draw, layout, folder)
    if workers == 1:
        yield from map(draw, entries)
        return
    waiting = iter(entries)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        coming = [pool.submit(draw, entry) for entry in islice(waiting, 4 * workers)]
        while coming:
            row = coming.pop(0).result()
            coming += [pool.submit(draw, entry) for entry in islice(waiting, 1)]
            yield row
    finally:
        pool.shutdown(cancel_futures=True)


def _draw(layout: str, folder: Path, entry: Entry) -> Any:
    return LAYOUTS[layout].draw(folder, entry)


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
