"""Frames of films at random places, decoded one by one: from the key frame before each, never the whole film."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from referencenet.media.decoding import opened_film, picture_stream, pixel_shape, upright
from referencenet.media.films import Film
from referencenet.media.images import read_frame

NEAR = 48
"""Frames that are sooner decoded than found by a seek to the key frame before them."""


def num_frames(path: Path) -> int:
    """Frames of a film: a video file, or a folder of pictures."""
    return len(_film(path))


def read_frames(path: Path, places: Sequence[int]) -> list[Image.Image]:
    """Frames of a film as a player shows them, mode RGB: those that `Film` has at these places.

    Args:
        path: A video file, a folder of pictures, or one picture, which is a film of one frame.
        places: Numbers of frames from 0 on, rising.

    Raises:
        ValueError: If the film has no such frame.
    """
    film = _film(path)
    if film.pictures:
        return [read_frame(film.pictures[_inside(path, place, len(film.pictures))]) for place in places]
    if film.survey is None and film.num_frames == 1:
        return [next(iter(film))] * len(places)
    if film.survey is None or film.survey.num_lost or not film.survey.is_steady or not film.survey.step:
        return _one_by_one(film, places)  # their times do not tell their numbers
    return _by_time(film, places, film.survey.step)


@functools.lru_cache(maxsize=65536)
def _film(path: Path) -> Film:
    return Film(path)


def _one_by_one(film: Film, places: Sequence[int]) -> list[Image.Image]:
    """Frames by counting from the first one."""
    wanted = {_inside(film.path, place, film.num_frames) for place in places}
    found: dict[int, Image.Image] = {}
    for place, frame in enumerate(film):
        if place in wanted:
            found[place] = frame
        if len(found) == len(wanted):
            break
    return [found[place] for place in places]


def _by_time(film: Film, places: Sequence[int], step: float) -> list[Image.Image]:
    """Frames by the times at which they are shown, `step` seconds after each other."""
    found: list[Image.Image] = []
    with closing(opened_film(film.path)) as container:
        stream: Any = picture_stream(container)
        stream.thread_count = 1
        shape = pixel_shape(stream)
        decoded: Any = container.decode(stream)
        first = next(decoded)
        decoded, start = chain([first], decoded), first.pts
        last = -1
        for place in places:
            _inside(film.path, place, film.num_frames)
            if place == last:  # of a film that is shorter than the clip
                found.append(found[-1])
                continue
            if place > last + NEAR:
                container.seek(start + int(place * step / stream.time_base), stream=stream)
                decoded = container.decode(stream)
            for frame in decoded:
                last = round(float((frame.pts - start) * stream.time_base) / step)
                if last >= place:
                    found.append(upright(frame, shape))
                    break
            else:
                raise ValueError(f"{film.path} has no frame {place}; it is shorter than it says, export it again.")
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
