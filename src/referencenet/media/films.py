"""Films in and out, frame by frame, so that memory does not depend on their length.

In: video files (PyAV), animated pictures, folders of pictures, lists and arrays. Out: video files and folders of PNGs,
written piece by piece: a piece is on the disk whole or not at all, and so is the film. A track is added when pieces are
joined. What is lost on the way in or out is said by a `Notice`.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from referencenet.later import later
from referencenet.media.decoding import (
    HIGH_RANGE,
    MAX_RATE,
    Survey,
    opened_film,
    picture_stream,
    pictures,
    rate_of,
    surveyed,
)
from referencenet.media.encoding import CODECS, check_frames, join_pieces, write_gif, write_pictures, write_piece
from referencenet.media.files import check_place, forget_settings, locked, write_settings
from referencenet.media.folders import PICTURES, natural, pictures_in
from referencenet.media.images import Picture, moving, opened, read_frame
from referencenet.media.sound import TRACK_CODECS, check_sound
from referencenet.telling import note

if TYPE_CHECKING:
    import av
else:
    (av,) = later("av")

logger = logging.getLogger(__name__)

DEFAULT_RATE = Fraction(25)


def frame_rate(number: float) -> Fraction:
    """A rate as it was typed, exactly: 29.97 is 30000/1001, as are the other rates that television divides by 1.001.

    Raises:
        ValueError: If it is no rate of a film.
    """
    if not 0.01 <= number <= MAX_RATE:  # NaN is neither
        raise ValueError(f"a rate of {number:g} frames per second; expected 0.01 to {MAX_RATE}.")
    whole = round(number * 1.001)
    divided = Fraction(1000 * whole, 1001)
    return divided if whole >= 10 and abs(number - float(divided)) < 0.005 else Fraction(number).limit_denominator(1001)


class FrameSource(Protocol):
    """A film whose frames can be read anew from the start: one on the disk, or drawings made when they are needed."""

    rate: Fraction

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Image.Image]: ...


class Film:
    """A film on the disk: a video file, an animated picture or a folder of pictures. Each iteration reads it anew.

    Args:
        path: Where it is. A folder's pictures come in natural order (2 before 10); hidden files are none.

    Attributes:
        rate: Frames per second; on average, where they are not steady.
        has_sound: Whether it has a track.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is no film or has no frame.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rate, self.has_sound = DEFAULT_RATE, False
        self.pictures = pictures_in(self.path) if self.path.is_dir() else []
        if self.pictures:
            return
        if self.path.is_dir():
            raise ValueError(
                f"{self.path} has no frame; give a video file, or a folder of pictures ({', '.join(PICTURES)})."
            )
        if self._is_picture:
            with opened(self.path) as picture:
                lasts = picture.info.get("duration") or 0  # milliseconds
                self.rate = Fraction(1000) / Fraction(lasts).limit_denominator(1000) if lasts > 0 else DEFAULT_RATE
        else:
            self._look()
        if next(iter(self), None) is None:
            raise ValueError(f"{self.path} has no frame that can be decoded; export it again as mp4 or webm.")

    def __len__(self) -> int:
        return self.num_frames

    @cached_property
    def num_frames(self) -> int:
        """Frames that decode. Films are decoded once to count them: what a file says of itself need not be true."""
        if self.pictures:
            return len(self.pictures)
        found = self.survey
        if found is None:
            return sum(1 for _ in self)
        if found.num_lost:
            note(f"{self.path} is damaged or cut short: {found.num_lost} packets do not decode and are left out, "
                 f"{found.num_frames} frames do.")  # fmt: skip
        if not found.is_steady:
            note(f"{self.path} has a variable rate: its {found.num_frames} frames are taken one by one, at "
                 f"{float(self.rate):.4g} a second on average, so some come earlier or later than in it.")  # fmt: skip
        return found.num_frames

    @cached_property
    def survey(self) -> Survey | None:
        """What decoding all frames once has found; None of pictures, which Pillow reads."""
        return None if self.pictures or self._is_picture else surveyed(self.path)

    def __iter__(self) -> Iterator[Image.Image]:
        """Frames in order, mode RGB, upright; transparent parts are black."""
        if self.pictures:
            yield from map(read_frame, self.pictures)
        elif self._is_picture:
            yield from map(read_frame, moving(self.path))
        else:
            yield from pictures(self.path)

    @property
    def _is_picture(self) -> bool:
        """Whether Pillow reads it: pictures, animated ones too, but for GIF."""
        return self.path.suffix.lower() in PICTURES

    def _look(self) -> None:
        """What a video file says of itself."""
        with opened_film(self.path) as container:
            stream = picture_stream(container)
            self.rate, self.has_sound = rate_of(stream) or DEFAULT_RATE, bool(container.streams.audio)
            curve = HIGH_RANGE.get(int(stream.codec_context.color_trc))
        if curve is not None:
            note(f"{self.path} is of high dynamic range ({curve}); its colours are read as if they were of standard "
                 "range, and come out pale.")  # fmt: skip


def frames_of(source: Any, limit: int | None = None) -> Iterator[Image.Image]:
    """Frames of whatever holds a film, mode RGB; transparent parts are black.

    Args:
        source: A path; a list of pictures; an array (frames, height, width, 3) or tensor (frames, 3, height, width).
        limit: Stop after so many.

    Raises:
        TypeError: If it is a single picture.
        ValueError: If its shape is not that of a film, or it has no frame.
    """
    if isinstance(source, Image.Image):
        raise TypeError(
            "one picture was given where a film is expected; give a list of pictures, [picture] for one frame."
        )
    if getattr(source, "ndim", 4) != 4:
        raise ValueError(
            f"a film of shape {tuple(source.shape)} was given; expected four axes: (frames, height, width, 3) for "
            "arrays, (frames, 3, height, width) for tensors."
        )
    frames: Iterable[Picture] = Film(source) if isinstance(source, str | Path) else source
    count = 0
    for frame in frames:
        if limit is not None and count == limit:
            return
        count += 1
        yield read_frame(frame)
    if not count:
        raise ValueError("a film without frames was given; give at least one.")


def check_film_path(path: Path, sound: Path | None = None, *, resume: bool = False, overwrite: bool = False) -> None:
    """Make sure that a film can be written there, before anything is made of it.

    Args:
        path: Of the film.
        sound: Whose track it is to get.
        resume: Whether an unfinished film is resumed.
        overwrite: Whether the frames that a folder holds may be taken away.

    Raises:
        FileNotFoundError: If there is no such sound.
        FileExistsError: If a folder holds pictures already, which would be taken for frames of the film.
        ValueError: If the ending names no kind of film, films of this kind have no track, the file has no sound, or
            another process is writing the film.
        OSError: If the place may not be written to.
    """
    ending = path.suffix.lower()
    if ending not in (*CODECS, ".gif", ""):
        raise ValueError(
            f"{path.name} ends with {path.suffix!r}; use .mp4, .webm, .gif, or no ending for a folder of PNGs."
        )
    if sound is not None:
        check_sound(sound)
        if ending not in TRACK_CODECS:
            raise ValueError(f"{path.name} cannot hold sound; use {' or '.join(TRACK_CODECS)}, or leave the sound out.")
    check_place(path, folder=not ending)
    held = pictures_in(path) if not ending and path.is_dir() else []
    strange = [file for file in held if not FRAME.fullmatch(file.name)] if overwrite else held
    if strange and not (resume and parts_of(path).is_dir()):
        raise FileExistsError(
            f"{path} holds {len(strange)} pictures already, such as {strange[0].name}, which would be taken for frames "
            f"of the film; give a new or empty folder{'' if overwrite else ', or remove them with overwrite'}."
        )


def write_film(
    frames: Iterable[Image.Image],
    path: str | Path,
    rate: Fraction | int = DEFAULT_RATE,
    *,
    sound: str | Path | None = None,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write a film.

    Args:
        frames: All of one size; streamed, except to GIF.
        path: .mp4, .webm, .gif, or a folder for PNGs.
        rate: Frames per second.
        sound: A file whose sound becomes the track, from the film's beginning to its end; only for .mp4 and .webm.
        overwrite: Take older frames out of the folder; files are replaced anyway.
        settings: What decides the film, to stand beside it as JSON, and in it.

    Returns:
        The path.
    """
    path, rate = Path(path), Fraction(rate)
    with FilmWriter(path, rate, sound=sound, overwrite=overwrite, settings=settings) as writer:
        for frame in frames:
            writer.write(frame)
        writer.finish()
    return path


PIECE = 100
"""Frames in a piece where nothing else says how many."""
FRAME = re.compile(r"\d{6,}\.png")
"""Names of the frames that are written to a folder."""

NAMED = re.compile(r"(\d{8})-(\d+)(\.mp4|\.webm|)")
"""Names of pieces: the first frame, and how many; a folder of PNGs has no ending."""


class FilmWriter:
    """Writes a film piece by piece. Until `finish` the pieces lie in a folder beside it, for a later writer to find.

    No other process can write the same film until the block that it is used in ends.

    Args:
        path: .mp4, .webm, .gif, or a folder for PNGs.
        rate: Frames per second.
        keep_frames: Go on behind so many frames that an earlier writer has left; 0: start again.
        sound: A file whose sound becomes the track; only for .mp4 and .webm.
        overwrite: Take older frames out of the folder when the film is complete.
        settings: What decides the film, to stand beside it as JSON and in it: in .mp4, .webm and .gif as their comment,
            in a folder in every PNG.
    """

    def __init__(
        self, path: Path, rate: Fraction, keep_frames: int = 0, *, sound: str | Path | None = None,
        overwrite: bool = False, settings: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.sound = None if sound is None else Path(sound)
        check_film_path(path, self.sound, resume=keep_frames > 0, overwrite=overwrite)
        self.path, self.rate = path, rate
        self.parts = parts_of(path)
        self.num_frames = 0
        self._waiting: list[Image.Image] = []
        with ExitStack() as held:
            held.enter_context(locked(path))
            self._keep(keep_frames)
            self._held = held.pop_all()

    def _keep(self, count: int) -> None:
        """Take away what is behind so many finished frames."""
        if not count and self.parts.exists():
            shutil.rmtree(self.parts)
        self.parts.mkdir(parents=True, exist_ok=True)
        for piece in self.pieces:
            first, frames = _numbers(piece)
            if first + frames > count:
                shutil.rmtree(piece) if piece.is_dir() else piece.unlink()
            else:
                self.num_frames = first + frames
        if self.num_frames != count:
            raise ValueError(
                f"{self.parts} holds {self.num_frames} finished frames, not {count}; start again, without resuming."
            )

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave what is finished where it is, and nothing where nothing is."""
        if self.parts.is_dir() and not any(self.parts.iterdir()):
            self.parts.rmdir()
        self._held.close()

    @property
    def pieces(self) -> list[Path]:
        """Finished pieces, in order; other files in their folder are none."""
        return sorted(piece for piece in self.parts.iterdir() if NAMED.fullmatch(piece.name))

    def add(self, frames: Sequence[Image.Image]) -> None:
        """Write a piece.

        Raises:
            OSError: If it cannot be written, as on a full disk; earlier pieces stay.
            ValueError: If the frames differ in size, or it is odd where it must not be.
        """
        ending = self.path.suffix.lower()
        check_frames(frames, ending)
        name = f"{self.num_frames:08d}-{len(frames)}"
        try:
            if ending in CODECS:
                write_piece(frames, self.parts / f"{name}{ending}", self.rate)
            else:
                said = None if ending else self.settings
                write_pictures(frames, self.parts / name, self.num_frames, said)
        except (OSError, av.error.FFmpegError) as error:
            raise OSError(
                f"frames {self.num_frames} to {self.num_frames + len(frames) - 1} of {self.path} could not be "
                f"written ({error}). "
                f"What is finished stays in {self.parts}; mend the cause and resume."
            ) from error
        logger.info("%s: frames %d to %d written", self.path, self.num_frames, self.num_frames + len(frames) - 1)
        self.num_frames += len(frames)

    def write(self, frame: Image.Image) -> None:
        """Write a frame, in pieces of `PIECE` frames; as `add`."""
        self._waiting.append(frame)
        if len(self._waiting) == PIECE:
            self._flush()

    def finish(self) -> None:
        """Write what waits, make the film of the pieces and take their folder away."""
        self._flush()
        forget_settings(self.path)
        if self.path.suffix.lower() in CODECS:
            join_pieces(
                self.pieces, self.path, self.rate, sound=self.sound, num_frames=self.num_frames, record=self.settings
            )
        elif self.path.suffix:
            write_gif(self._files, self.path, self.rate, self.settings)
        else:
            self._fill_folder()
        if self.settings is not None:
            write_settings(self.path, self.settings)
        shutil.rmtree(self.parts)

    def _flush(self) -> None:
        if self._waiting:
            self.add(self._waiting)
            self._waiting = []

    @property
    def _files(self) -> list[Path]:
        """The PNGs of all pieces, in order."""
        return [file for piece in self.pieces for file in sorted(piece.iterdir(), key=natural)]

    def _fill_folder(self) -> None:
        """Move the PNGs to where they belong, in place of an older film's."""
        files = self._files
        self.path.mkdir(parents=True, exist_ok=True)
        for file in pictures_in(self.path):
            if FRAME.fullmatch(file.name) and int(file.stem) >= self.num_frames:
                file.unlink()
        for file in files:
            file.replace(self.path / file.name)


def _numbers(piece: Path) -> tuple[int, int]:
    """A piece's first frame, and how many it has."""
    first, count = piece.stem.split("-")
    return int(first), int(count)


def parts_of(path: Path) -> Path:
    """The folder where the pieces of an unfinished film lie."""
    return path.with_name(f".{path.name}.parts")
