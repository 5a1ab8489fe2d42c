"""Frames at random places of a film are those that a player shows there, whatever the film is like."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoded_films import encode
from referencenet.media.films import Film
from referencenet.telling import Notice
from referencenet.training.data.frames import num_frames, read_frames

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "turned": ("film.mp4", {"turn": 90}),
    "of wide pixels": ("film.mp4", {"shape": Fraction(2)}),
    "cut by an edit list": ("film.mp4", {"begin": 6}),
    "of a variable rate": ("film.mkv", {"steps": [*range(10), *range(30, 120, 3), *range(200, 220)]}),
    "of times in milliseconds": ("film.mkv", {}),
    "of a name with a colon": ("take:2.mp4", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_the_film(kind: str, tmp_path: Path) -> None:
    name, how = KINDS[kind]
    path = encode(tmp_path / name, 60, **how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # of the variable rate
        count, whole = num_frames(path), [np.asarray(frame) for frame in Film(path)]
    assert count == len(whole)
    for places in ([0, 1, 2], [count - 1], [3, 20, 20, 50], [51, 52]):
        for place, frame in zip(places, read_frames(path, places), strict=True):
            assert np.array_equal(np.asarray(frame), whole[place]), place
    with pytest.raises(ValueError, match=f"has {count} frames, but frame {count} was asked for"):
        read_frames(path, [count])


@pytest.mark.parametrize("kind", ["folder", "picture.png", "film.webp", "film.gif"])
def test_transparent_frames_lie_on_black_as_in_films(kind: str, tmp_path: Path) -> None:
    frames = [Image.new("RGBA", (16, 16), (255, 255, 255, 0)) for _ in range(3)]
    for i, frame in enumerate(frames):
        frame.paste((200, 30, 60, 255), (0, 0, 4 + i, 4))
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
        for i, frame in enumerate(frames):
            frame.save(path / f"{i}.png")
    elif kind == "picture.png":
        frames[0].save(path)
    else:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, lossless=True)
    whole = list(Film(path))
    assert num_frames(path) == len(whole)
    for place, frame in enumerate(read_frames(path, list(range(len(whole))))):
        assert frame.getpixel((12, 12)) == (0, 0, 0)
        assert np.array_equal(np.asarray(frame), np.asarray(whole[place]))


def test_lists_of_other_files_are_not_followed(tmp_path: Path) -> None:
    encode(tmp_path / "whole.mp4", 3)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile whole.mp4\n")
    with pytest.raises(ValueError, match="list.mp4 is not a film that can be read"):
        read_frames(tmp_path / "list.mp4", [0])
