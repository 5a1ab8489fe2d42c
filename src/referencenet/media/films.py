"""Films in and out, frame by frame, so that memory does not depend on their length.

In: video files (PyAV), animated pictures, folders of pictures, lists and arrays. Out: video files and folders of PNGs,
written piece by piece: a piece is on the disk whole or not at all, and pieces are joined without encoding them again.
A track is added when they are joined.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import torch
from PIL import Image

from referencenet.media.files import written_whole
from referencenet.media.images import Picture, read_image
from referencenet.media.sound import TRACK_CODECS, Track, check_sound

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
DEFAULT_RATE = Fraction(25)

CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mp4": ("libx264", "yuv420p", {"crf": "17", "bf": "0", "preset": "medium"}),
    ".webm": ("libvpx-vp9", "yuv420p", {"crf": "24", "b": "0", "lag-in-frames": "0", "auto-alt-ref": "0"}),
}
"""Ending to codec, pixel format and options. No frames out of order: pieces can then be joined by counting on."""

MAX_GIF_FRAMES = 600  # GIF's frames are held in memory while it is written


MAX_RATE = 1000


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
        path: Where it is.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is no film or has no frame.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(
                f"there is no film {self.path}; check the path (the current folder is {Path.cwd()})."
            )
        self.pictures = (
            sorted(file for file in self.path.iterdir() if file.suffix.lower() in PICTURES)
            if self.path.is_dir()
            else []
        )
        self.rate = DEFAULT_RATE
        self.num_frames = len(self.pictures) if self.path.is_dir() else self._count()
        if not self.num_frames:
            raise ValueError(
                f"{self.path} has no frame; give a video file, or a folder of pictures ({', '.join(PICTURES)})."
            )

    def __len__(self) -> int:
        return self.num_frames

    def __iter__(self) -> Iterator[Image.Image]:
        """Frames in order, mode RGB."""
        if self.pictures:
            yield from map(read_image, self.pictures)
            return
        with self._opened() as container:
            for frame in container.decode(video=0):
                yield frame.to_image()

    def _count(self) -> int:
        """Count the frames without decoding them, and read the rate."""
        with self._opened() as container:
            self.rate = container.streams.video[0].average_rate or DEFAULT_RATE
            return sum(packet.size > 0 for packet in container.demux(video=0))

    def _opened(self) -> Any:
        try:
            container = av.open(str(self.path))
        except (av.error.FFmpegError, OSError) as error:
            raise ValueError(
                f"{self.path} is not a film that can be read ({error}); export it again as mp4 or webm."
            ) from error
        if not container.streams.video:
            container.close()
            raise ValueError(f"{self.path} has no picture stream; give a film, not only sound.")
        return container


def frames_of(source: Any, limit: int | None = None) -> Iterator[Picture]:
    """Frames of whatever holds a film.

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
    if isinstance(source, np.ndarray | torch.Tensor) and source.ndim != 4:
        raise ValueError(
            f"a film of shape {tuple(source.shape)} was given; expected four axes: (frames, height, width, 3) for "
            f"arrays, "
            "(frames, 3, height, width) for tensors."
        )
    frames: Iterable[Picture] = Film(source) if isinstance(source, str | Path) else source
    count = 0
    for frame in frames:
        if limit is not None and count == limit:
            return
        count += 1
        yield frame
    if not count:
        raise ValueError("a film without frames was given; give at least one.")


def check_film_path(path: Path, sound: Path | None = None) -> None:
    """Make sure that the ending names a kind of film that can be written.

    Args:
        path: Of the film.
        sound: Whose track it is to get.

    Raises:
        FileNotFoundError: If there is no such sound.
        ValueError: If it does not, films of this kind have no track, or the file has no sound.
    """
    if path.suffix.lower() not in (*CODECS, ".gif", ""):
        raise ValueError(
            f"{path.name} ends with {path.suffix!r}; use .mp4, .webm, .gif, or no ending for a folder of PNGs."
        )
    if sound is not None:
        check_sound(sound)
        if path.suffix.lower() not in TRACK_CODECS:
            raise ValueError(
                f"{path.name} cannot hold sound; use {' or '.join(TRACK_CODECS)}, or leave the sound away."
            )


def write_piece(frames: Sequence[Image.Image], path: Path, rate: Fraction) -> None:
    """Write frames as a piece of a film, whole or not at all.

    Args:
        frames: All of one size with even sides.
        path: Ends with .mp4 or .webm.
        rate: Frames per second.
    """
    codec, pixel_format, options = CODECS[path.suffix.lower()]
    with written_whole(path) as temporary, av.open(str(temporary), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, pixel_format
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


def join_pieces(
    pieces: Sequence[Path], path: Path, rate: Fraction, *, sound: Path | None = None, num_frames: int = 0
) -> None:
    """Put pieces behind each other without encoding them again.

    Args:
        pieces: As `write_piece` wrote them, in order.
        path: The film; appears whole or not at all.
        rate: Frames per second, of every piece.
        sound: A file whose sound becomes the film's track.
        num_frames: Of all pieces: the sound is cut behind them.
    """
    with written_whole(path) as temporary, av.open(str(temporary), "w") as container:
        stream: Any = None
        track: Track | None = None
        start = Fraction(0)  # seconds
        for piece in pieces:
            with av.open(str(piece)) as part:
                source: Any = part.streams.video[0]
                if stream is None:
                    stream = container.add_stream_from_template(source)
                    if sound is not None:
                        track = Track(container, sound, path.suffix.lower(), num_frames / rate)
                count = 0
                for packet in part.demux(source):
                    if packet.dts is None or not packet.size:
                        continue
                    packet.pts += round(start / packet.time_base)
                    packet.dts += round(start / packet.time_base)
                    count += 1
                    if track is not None:
                        track.write_until(packet.dts * packet.time_base)
                    packet.stream = stream
                    container.mux(packet)
                start += count / rate
        if track is not None:
            track.write_until()


def write_film(
    frames: Iterable[Image.Image],
    path: str | Path,
    rate: Fraction | int = DEFAULT_RATE,
    *,
    sound: str | Path | None = None,
) -> Path:
    """Write a film.

    Args:
        frames: All of one size; streamed, except to GIF.
        path: .mp4, .webm, .gif, or a folder for PNGs.
        rate: Frames per second.
        sound: A file whose sound becomes the track, from the film's beginning to its end; only for .mp4 and .webm.

    Returns:
        The path.
    """
    path, rate = Path(path), Fraction(rate)
    with FilmWriter(path, rate, sound=sound) as writer:
        for frame in frames:
            writer.write(frame)
        writer.finish()
    return path


PIECE = 100
"""Frames in a piece where nothing else says how many."""


class FilmWriter:
    """Writes a film piece by piece. Until `finish` the pieces lie in a folder beside it, for a later writer to find.

    Args:
        path: .mp4, .webm, .gif, or a folder for PNGs.
        rate: Frames per second.
        keep_frames: Go on behind so many frames that an earlier writer has left; 0: begin anew.
        sound: A file whose sound becomes the track; only for .mp4 and .webm.
    """

    def __init__(self, path: Path, rate: Fraction, keep_frames: int = 0, *, sound: str | Path | None = None) -> None:
        self.sound = None if sound is None else Path(sound)
        check_film_path(path, self.sound)
        self.path, self.rate = path, rate
        self.parts = parts_of(path)
        self.num_frames = 0
        self._waiting: list[Image.Image] = []
        if not keep_frames and self.parts.exists():
            shutil.rmtree(self.parts)
        self.parts.mkdir(parents=True, exist_ok=True)
        for piece in self.pieces:
            first, count = (int(number) for number in piece.stem.split("-"))
            if first + count > keep_frames:
                piece.unlink()
            else:
                self.num_frames = first + count
        if self.num_frames != keep_frames:
            raise ValueError(
                f"{self.parts} holds {self.num_frames} finished frames, not {keep_frames}; begin anew, without "
                f"resuming."
            )

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave what is finished where it is, and nothing where nothing is."""
        if self.parts.is_dir() and not any(self.parts.iterdir()):
            self.parts.rmdir()

    @property
    def pieces(self) -> list[Path]:
        """Finished pieces, in order; their names say the first frame and how many."""
        return sorted(self.parts.glob("[0-9]*-[0-9]*.*"))

    def add(self, frames: Sequence[Image.Image]) -> None:
        """Write a piece.

        Raises:
            OSError: If it cannot be written, as on a full disk; earlier pieces stay.
        """
        name = f"{self.num_frames:08d}-{len(frames)}"
        try:
            if self.path.suffix:
                write_piece(frames, self.parts / f"{name}{self._ending}", self.rate)
            else:
                with written_whole(self.parts / f"{name}.txt") as marker:
                    for i, frame in enumerate(frames):
                        with written_whole(self.path / f"{self.num_frames + i:06d}.png") as file:
                            frame.save(file)
                    marker.write_text(f"frames {self.num_frames} to {self.num_frames + len(frames) - 1}\n")
        except (OSError, av.error.FFmpegError) as error:
            raise OSError(
                f"frames {self.num_frames} to {self.num_frames + len(frames) - 1} of {self.path} could not be "
                f"written ({error}). "
                f"What is finished stays in {self.parts}; mend the cause and resume."
            ) from error
        self.num_frames += len(frames)

    def write(self, frame: Image.Image) -> None:
        """Write a frame, in pieces of `PIECE` frames; as `add`."""
        self._waiting.append(frame)
        if len(self._waiting) == PIECE:
            self._flush()

    def finish(self) -> None:
        """Write what waits, join the pieces and take their folder away."""
        self._flush()
        if self.path.suffix == ".gif":
            self._write_gif()
        elif self.path.suffix:
            join_pieces(self.pieces, self.path, self.rate, sound=self.sound, num_frames=self.num_frames)
        shutil.rmtree(self.parts)

    def _flush(self) -> None:
        if self._waiting:
            self.add(self._waiting)
            self._waiting = []

    @property
    def _ending(self) -> str:
        return ".mp4" if self.path.suffix.lower() == ".gif" else self.path.suffix.lower()

    def _write_gif(self) -> None:
        if self.num_frames > MAX_GIF_FRAMES:
            raise ValueError(
                f"a GIF of {self.num_frames} frames is too long, at most {MAX_GIF_FRAMES}; write .webm or .mp4."
            )
        frames = [frame for piece in self.pieces for frame in Film(piece)]
        with written_whole(self.path) as temporary:
            frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=round(1000 / self.rate), loop=0)


def parts_of(path: Path) -> Path:
    """The folder where the pieces of an unfinished film lie."""
    return path.with_name(f".{path.name}.parts")
