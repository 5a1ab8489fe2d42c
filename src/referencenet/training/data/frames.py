"""Frames of films at random places, decoded one by one: from the key frame before each, never the whole film."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from referencenet.media.films import Film
from referencenet.media.images import read_image

NEAR = 48
"""Frames that are sooner decoded than found by a seek to the key frame before them."""


@functools.lru_cache(maxsize=65536)
def num_frames(path: Path) -> int:
    """Frames of a film: a video file, or a folder of pictures."""
    return len(Film(path))


def read_frames(path: Path, places: Sequence[int]) -> list[Image.Image]:
    """Frames of a film, mode RGB.

    Args:
        path: A video file, a folder of pictures, or one picture, which is a film of one frame.
        places: Numbers of frames from 0 on, rising.

    Raises:
        ValueError: If the film has no such frame.
    """
    if path.is_dir():
        pictures = Film(path).pictures
        return [read_image(pictures[_inside(path, place, len(pictures))]) for place in places]
    if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"):
        return [read_image(path) for _ in places]
    found: list[Image.Image] = []
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        stream.thread_count = 1
        rate, start = stream.average_rate, stream.start_time or 0
        decoded: Any = iter(())
        last = -1
        for place in places:
            if place == last:  # of a film that is shorter than the clip
                found.append(found[-1])
                continue
            if last < 0 or place > last + NEAR:
                container.seek(start + int(place / rate / stream.time_base), stream=stream)
                decoded = container.decode(stream)
            for frame in decoded:
                last = round((frame.pts - start) * stream.time_base * rate)
                if last >= place:
                    found.append(frame.to_image())
                    break
            else:
                raise ValueError(f"{path} has no frame {place}; it is shorter than it says, export it again.")
    return found


def _inside(path: Path, place: int, count: int) -> int:
    if not 0 <= place < count:
        raise ValueError(f"{path} has {count} frames, but frame {place} was asked for; give films of one length.")
    return place


def draw_pair(count: int, margin: int, random: torch.Generator) -> tuple[int, int]:
    """A reference frame and a target at least `margin` frames behind it, else before it, else any: Animate Anyone's."""
    reference = _below(count, random)
    if reference + margin < count:
        return reference, reference + margin + _below(count - reference - margin, random)
    if reference - margin > 0:
        return reference, _below(reference - margin, random)
    return reference, _below(count, random)


def draw_clip(count: int, frames: int, stride: int, random: torch.Generator) -> tuple[int, list[int]]:
    """A reference frame, and a clip's frames evenly spread over their span; shorter films are squeezed."""
    span = min(count, (frames - 1) * stride + 1)
    start = _below(count - span + 1, random)
    places = np.linspace(start, start + span - 1, frames, dtype=int).tolist()
    return _below(count, random), places


def draw_one(choices: Sequence[int], random: torch.Generator) -> int | None:
    """One of several numbers, all alike; None where there are none, and nothing is drawn."""
    return choices[_below(len(choices), random)] if choices else None


def _below(limit: int, random: torch.Generator) -> int:
    return int(torch.randint(max(1, limit), (1,), generator=random))
