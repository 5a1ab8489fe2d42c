"""What a page takes, and the sentence with which it refuses the rest."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from referencenet.media.films import write_film
from referencenet.ui.given import Given, Limits
from tiny import picture

LIMITS = Limits(megapixels=0.01, seconds=1.0, pictures=4)


def given(**values: Any) -> Given:
    return Given(values, LIMITS)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    picture(1, (64, 48)).save(tmp_path / "small.png")
    picture(1, (200, 100)).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("no picture")
    write_film([picture(i, (32, 32)) for i in range(30)], tmp_path / "long.mp4", 25)
    write_film([picture(i, (32, 32)) for i in range(5)], tmp_path / "short.mp4", 25)
    for name, seconds in (("long", 2), ("short", 0.5)):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(np.zeros(int(16000 * seconds), "<i2").tobytes())
    ink = Image.new("RGBA", (64, 48))
    ink.paste((225, 29, 143, 255), (0, 0, 32, 48))
    ink.save(tmp_path / "ink.png")
    Image.new("RGBA", (64, 48)).save(tmp_path / "no-ink.png")
    return {path.name: str(path) for path in tmp_path.iterdir()}


def test_pictures_films_and_sounds_within_limits_are_read(files: dict[str, str]) -> None:
    found = given(picture=files["small.png"], film=files["short.mp4"], sound=files["short.wav"])
    assert found.picture("picture", "a picture").size == (64, 48)
    assert len(found.film("film", "a film")) == 5
    assert len(found.sound("sound", "a sound")) == 8000
    assert set(found.files) == {"picture", "film", "sound"}


@pytest.mark.parametrize(
    ("how", "name", "says"),
    [
        ("picture", "large.png", "200 x 100 pixels; this page takes up to 0.01 million"),
        ("picture", "text.png", "is not a picture that Pillow can read"),
        ("picture", "missing.png", "there is no picture"),
        ("picture", None, "give a thing"),
        ("film", "long.mp4", "lasts 1.2 s; this page takes up to 1 s"),
        ("film", "text.png", "is not a film that can be read"),
        ("sound", "long.wav", "lasts 2.0 s; this page takes up to 1 s"),
        ("sound", "text.png", "is not a sound that can be read"),
    ],
)
def test_the_rest_is_refused_in_one_sentence(files: dict[str, str], how: str, name: str | None, says: str) -> None:
    path = None if name is None else files.get(name, name)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        getattr(given(it=path), how)("it", "a thing")


def test_paint_is_a_mask_and_no_paint_is_none(files: dict[str, str]) -> None:
    value = {"background": files["small.png"], "layers": [files["ink.png"], files["no-ink.png"]]}
    found = given(it=value)
    shown, mask = found.painted("it", "a picture")
    assert mask is not None
    assert mask.size == shown.size
    assert mask.getbbox() == (0, 0, 32, 48)
    assert set(np.unique(np.asarray(mask))) == {0, 255}
    assert found.files["it_mask"].is_file()
    assert given(it=value | {"layers": [files["no-ink.png"]]}).painted("it", "a picture")[1] is None


def test_an_empty_canvas_is_no_picture(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 48), "white").save(tmp_path / "white.png")
    with pytest.raises(ValueError, match="give a picture to refer to"):
        given(it={"background": str(tmp_path / "white.png")}).painted("it", "a picture to refer to")


@pytest.mark.parametrize(
    ("values", "read", "says"),
    [
        ({"count": 5}, "count", "count is 5; give 1 to 4"),
        ({"count": 1.5}, "count", "give a whole number"),
        ({"steps": float("nan")}, "steps", "steps is nan"),
        ({"guidance": -1}, "guidance", "guidance is -1"),
        ({"seed": -1}, "seed", "seed is -1"),
        ({"size": "12x"}, "size", "WIDTHxHEIGHT"),
        ({"size": "65x64"}, "size", "multiples of 8"),
        ({"size": "1024x1024"}, "size", "the result is 1024 x 1024 pixels"),
    ],
)
def test_numbers_out_of_range_are_refused(values: dict[str, Any], read: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        getattr(given(**values), read)()


def test_what_is_left_empty_is_the_models_own_or_drawn() -> None:
    empty = given(steps=None, size="", guidance=None, seed=None)
    assert (empty.steps(), empty.size(), empty.guidance(), empty.count()) == (None, None, None, 1)
    assert empty.seed() != empty.seed()
