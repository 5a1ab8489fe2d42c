"""What a tab was given: files read within limits, and numbers, or one sentence that says what is wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
from PIL import Image, ImageChops

from referencenet.cli.options import LARGEST_SEED, MOST_SCALE, MOST_STEPS
from referencenet.cli.settings import parse_size
from referencenet.media.decoding import opened as opened_container
from referencenet.media.films import Film
from referencenet.media.fitting import Fit
from referencenet.media.images import opened, read_image, read_layers, read_mask
from referencenet.media.sheets import write_image
from referencenet.media.sound import SAMPLE_RATE, read_sound

INK = "#e11d8f"
"""Colour of what is painted on a picture."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a page takes from its users.

    Attributes:
        megabytes: Of a file.
        megapixels: Of a picture, and of a result.
        seconds: Of a film or a sound, and of a result.
        pictures: Results of one job.
        waiting: Jobs that wait or run.
    """

    megabytes: int = 64
    megapixels: float = 24.0
    seconds: float = 60.0
    pictures: int = 16
    waiting: int = 64


@dataclass
class Given:
    """The values of a tab by name.

    Attributes:
        values: As the page's components give them: files are paths, painted pictures a mapping of paths.
        limits: Of the page.
        files: What was read, by name.
    """

    values: Mapping[str, Any]
    limits: Limits
    files: dict[str, Path] = field(default_factory=dict[str, Path])

    def text(self, name: str) -> str:
        """Words; empty if there are none."""
        return str(self.values.get(name) or "").strip()

    def chosen(self, name: str) -> bool:
        """Whether a box is ticked."""
        return bool(self.values.get(name))

    def number(self, name: str, usual: float | None, least: float, most: float) -> Any:
        """A number; `usual` where none was given.

        Raises:
            ValueError: If it is outside of [least, most].
        """
        value = self.values.get(name)
        if value is None or value == "":
            return usual
        if not least <= value <= most:  # nor NaN
            raise ValueError(f"{name.replace('_', ' ')} is {value:g}; give {least:g} to {most:g}.")
        return value

    def whole(self, name: str, usual: int | None, least: int, most: int) -> Any:
        """A whole number; `usual` where none was given."""
        value = self.number(name, usual, least, most)
        if value is not None and value != int(value):
            raise ValueError(f"{name.replace('_', ' ')} is {value:g}; give a whole number.")
        return None if value is None else int(value)

    def seed(self) -> int:
        """The seed, drawn where none was given."""
        found = self.whole("seed", None, 0, LARGEST_SEED)
        return random.SystemRandom().randrange(2**31) if found is None else found

    def steps(self) -> int | None:
        """Denoising steps; None: the model's own."""
        return self.whole("steps", None, 1, MOST_STEPS)

    def guidance(self) -> float | None:
        """Guidance scale; None: the model's own."""
        return self.number("guidance", None, 0, MOST_SCALE)

    def count(self) -> int:
        """How many pictures."""
        return self.whole("count", 1, 1, self.limits.pictures)

    def person(self) -> int | None:
        """Which one of several, counted from the left from 1; None: the largest, or the only one."""
        return self.whole("who", None, 1, 99)

    def one_of(self, name: str, choices: Sequence[str], usual: str) -> str:
        """One of some words.

        Raises:
            ValueError: If it is another.
        """
        found = self.text(name) or usual
        if found not in choices:
            raise ValueError(f"the {name.replace('_', ' ')} is {found[:80]!r}; expected {', '.join(choices)}.")
        return found

    def fit(self) -> Fit | None:
        """How pictures of other proportions come to the result's; None: as the system does."""
        return self.one_of("fit", get_args(Fit), "") if self.text("fit") else None  # pyright: ignore[reportReturnType]

    def size(self, multiple: int = 8) -> str | None:
        """The size as typed, checked; None: the model's own."""
        text = self.text("size").replace("×", "x").replace(" ", "")
        if not text:
            return None
        self.check_pixels(parse_size(text, multiple=multiple), "the result")
        return text

    def check_pixels(self, size: tuple[int, int], what: str) -> None:
        """Refuse what is too large.

        Raises:
            ValueError: If it has more pixels than the page takes.
        """
        if size[0] * size[1] > self.limits.megapixels * 1e6:
            raise ValueError(
                f"{what} is {size[0]} x {size[1]} pixels; this page takes up to {self.limits.megapixels:g} million. "
                "Make it smaller, or start refnet ui with a larger --max-megapixels."
            )

    def file(self, name: str, what: str) -> Path:
        """A file.

        Raises:
            ValueError: If none was given.
        """
        found = self.maybe_file(name)
        if found is None:
            raise ValueError(f"give {what}.")
        return found

    def maybe_file(self, name: str) -> Path | None:
        """A file, or None."""
        value = self.values.get(name)
        value = value.get("background") if isinstance(value, Mapping) else value
        if not value:
            return None
        self.files[name] = Path(value)
        return self.files[name]

    def picture(self, name: str, what: str) -> Image.Image:
        """A picture that must be there, RGB."""
        return self._read(self.file(name, what))

    def maybe_picture(self, name: str) -> Image.Image | None:
        """A picture, RGB, or None."""
        found = self.maybe_file(name)
        return None if found is None else self._read(found)

    def pictures(self, name: str) -> list[Image.Image]:
        """Pictures, RGB; none if there are none."""
        paths: Sequence[str] = self.values.get(name) or []
        self.files |= {f"{name}-{i + 1}": Path(path) for i, path in enumerate(paths)}
        return [self._read(Path(path)) for path in paths]

    def painted(self, name: str, what: str) -> tuple[Image.Image, Image.Image | None]:
        """A picture that must be there, RGB, and where it is painted on, L; None: nowhere."""
        found = self._read(self.file(name, what))
        if found.getextrema() == ((255, 255),) * 3:  # an empty canvas
            raise ValueError(f"give {what}.")
        return found, self.paint(name)

    def paint(self, name: str) -> Image.Image | None:
        """Where a picture is painted on, mode L of its size: white is painted; None: nowhere."""
        value = self.values.get(name)
        layers = value.get("layers") or [] if isinstance(value, Mapping) else []
        found: Image.Image | None = None
        for path in layers:
            self._check_picture(Path(path))
            opacity = read_layers(path)[1]
            opacity = Image.new("L", read_image(path).size, 255) if opacity is None else opacity
            found = opacity if found is None else ImageChops.lighter(found, opacity)
        if found is None or not found.getbbox():
            return None
        mask = found.point([255 * (level > 127) for level in range(256)])
        last = Path(layers[-1])
        self.files[f"{name}_mask"] = write_image(mask, last.with_name(f"{last.stem}-mask.png"))  # beside the upload
        return mask

    def mask(self, name: str) -> Image.Image | None:
        """A mask from a file, mode L, or None."""
        path = self.maybe_file(name)
        if path is None:
            return None
        self._check_picture(path)
        return read_mask(path)

    def film(self, name: str, what: str) -> Film:
        """A film that must be there."""
        path = self.file(name, what)
        self._check_length(path, "film")
        film = Film(path)
        self.check_pixels(next(iter(film)).size, what)
        if len(film) > self.limits.seconds * film.rate:
            raise ValueError(self._too_long(what, len(film) / float(film.rate)))
        return film

    def sound(self, name: str, what: str) -> np.ndarray:
        """A sound that must be there, (samples,) at 16 kHz."""
        path = self.file(name, what)
        self._check_length(path, "sound")
        samples = read_sound(path)
        if len(samples) > self.limits.seconds * SAMPLE_RATE:
            raise ValueError(self._too_long(what, len(samples) / SAMPLE_RATE))
        return samples

    def _read(self, path: Path) -> Image.Image:
        self._check_picture(path)
        return read_image(path)

    def _check_picture(self, path: Path) -> None:
        with opened(path) as picture:
            self.check_pixels(picture.size, path.name)

    def _check_length(self, path: Path, what: str) -> None:
        """Refuse a film or a sound by what its file says of its length, before anything is decoded."""
        with opened_container(path, what, "export it again") as container:
            seconds = (container.duration or 0) / av.time_base
        if seconds > self.limits.seconds:
            raise ValueError(self._too_long(path.name, seconds))

    def _too_long(self, what: str, seconds: float) -> str:
        return (
            f"{what} lasts {seconds:.1f} s; this page takes up to {self.limits.seconds:g} s. Cut it, or start refnet "
            "ui with a larger --max-seconds."
        )
