"""Films encoded: pieces that are on the disk whole or not at all, and joined without encoding them again.

A piece of a film is a small film with BT.709's colours and tags that say so, or a folder of PNGs. A GIF's clock counts
hundredths of a second: its frames last two or more, right on average, and of faster films some are left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from referencenet.later import later
from referencenet.media.decoding import address
from referencenet.media.files import written_whole
from referencenet.media.records import as_text, inside
from referencenet.media.sheets import write_image
from referencenet.media.sound import Track
from referencenet.telling import note

if TYPE_CHECKING:
    import av
    from av.video import reformatter
else:
    av, reformatter = later("av", "av.video.reformatter")

CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mp4": ("libx264", "yuv420p", {"crf": "17", "bf": "0", "preset": "medium"}),
    ".webm": ("libvpx-vp9", "yuv420p", {"crf": "24", "b": "0", "lag-in-frames": "0", "auto-alt-ref": "0"}),
}
"""Ending to codec, pixel format and options. No frames out of order: pieces can then be joined by counting on."""

BT709 = 1  # in all three tables of ITU-T H.273: primaries, transfer, matrix
MAX_GIF_FRAMES = 600  # GIF's frames are held in memory while it is written
SHORTEST = 2  # hundredths of a second that a GIF's frame lasts at least: players take less for ten


def check_frames(frames: Sequence[Image.Image], ending: str) -> None:
    """Make sure that frames can become one film.

    Raises:
        ValueError: If they differ in size, or a side is odd where the codec takes none.
    """
    sizes = sorted({frame.size for frame in frames})
    if len(sizes) > 1:
        raise ValueError(f"the frames are of sizes {sizes[:3]}; give frames of one size.")
    if ending in CODECS and any(side % 2 for side in sizes[0]):
        raise ValueError(
            f"frames are {sizes[0][0]} x {sizes[0][1]}, and {ending} takes even sides only; cut a row or column off, "
            "or write .gif or a folder."
        )


def write_piece(frames: Sequence[Image.Image], path: Path, rate: Fraction) -> None:
    """Write frames as a piece of a film, whole or not at all.

    Args:
        frames: All of one size with even sides.
        path: Ends with .mp4 or .webm.
        rate: Frames per second.
    """
    codec, pixel_format, options = CODECS[path.suffix.lower()]
    with written_whole(path) as temporary, av.open(address(temporary), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, pixel_format
        context = stream.codec_context
        context.thread_count = 1  # the same bytes on every machine
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = reformatter.ColorRange.MPEG
        for picture in frames:
            container.mux(stream.encode(_in_bt709(picture, pixel_format)))
        container.mux(stream.encode(None))


def _in_bt709(picture: Image.Image, pixel_format: str) -> Any:
    """A picture as the encoder takes it, colours by BT.709's matrix."""
    frame: Any = av.VideoFrame.from_image(picture)
    return frame.reformat(
        format=pixel_format, dst_colorspace=reformatter.Colorspace.ITU709, dst_color_range=reformatter.ColorRange.MPEG
    )


def write_pictures(
    frames: Sequence[Image.Image], folder: Path, first: int, record: Mapping[str, Any] | None = None
) -> None:
    """Write frames as a folder of PNGs, whole or not at all.

    Args:
        frames: Of the film.
        folder: Where to.
        first: From here on their names count.
        record: What decided the film, to stand in every frame as text.
    """
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for i, frame in enumerate(frames):
            write_image(frame, partial / f"{first + i:06d}.png", record)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def join_pieces(
    pieces: Sequence[Path],
    path: Path,
    rate: Fraction,
    *,
    sound: Path | None = None,
    num_frames: int = 0,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Put pieces behind each other without encoding them again.

    Args:
        pieces: As `write_piece` wrote them, in order.
        path: The film; appears whole or not at all.
        rate: Frames per second, of every piece.
        sound: A file whose sound becomes the film's track.
        num_frames: Of all pieces: the sound is cut behind them.
        record: What decided the film, to stand in it as its comment, see `media.records`.

    Raises:
        OSError: If the pieces do not hold so many frames.
    """
    with written_whole(path) as temporary:
        with av.open(address(temporary), "w") as container:
            if record is not None:
                container.metadata["comment"] = as_text(record)
            written = _joined(pieces, container, path.suffix.lower(), rate, sound, num_frames)
        if written != num_frames:
            raise OSError(
                f"the pieces of {path} hold {written} frames, not {num_frames}: another program has changed them; "
                "start again."
            )


def _joined(
    pieces: Sequence[Path], container: Any, ending: str, rate: Fraction, sound: Path | None, num_frames: int
) -> int:
    """Write the packets of all pieces; returns how many frames they are."""
    stream: Any = None
    track: Track | None = None
    total = 0
    for piece in pieces:
        with av.open(address(piece)) as part:
            source: Any = part.streams.video[0]
            if stream is None:
                stream = container.add_stream_from_template(source)
                track = None if sound is None else Track(container, sound, ending, num_frames / rate)
            start = total / rate  # seconds
            for packet in part.demux(source):
                if packet.dts is None or not packet.size:
                    continue
                packet.pts += round(start / packet.time_base)
                packet.dts += round(start / packet.time_base)
                total += 1
                if track is not None:
                    track.write_until(packet.dts * packet.time_base)
                packet.stream = stream
                container.mux(packet)
    if track is not None:
        track.write_until()
    return total


def write_gif(files: Sequence[Path], path: Path, rate: Fraction, record: Mapping[str, Any] | None = None) -> None:
    """Write pictures as an animated GIF, whole or not at all.

    Args:
        files: Of its frames, in order.
        path: Of the GIF.
        rate: Frames per second. Above 50 frames are left out, with a word.
        record: What decided the film, to stand in it as its comment.

    Raises:
        ValueError: If there are too many frames.
    """
    shown, durations = gif_times(len(files), rate)
    if len(shown) > MAX_GIF_FRAMES:
        raise ValueError(f"a GIF of {len(shown)} frames is too long, at most {MAX_GIF_FRAMES}; write .webm or .mp4.")
    if len(shown) < len(files):
        note(f"{path} shows {len(shown)} of {len(files)} frames: a GIF has at most {100 // SHORTEST} a second.")
    first, *others = _opened(files[i] for i in shown)
    with written_whole(path) as temporary:
        said = {} if record is None else inside(".gif", record)
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=durations, loop=0, **said)


def gif_times(count: int, rate: Fraction) -> tuple[list[int], list[int]]:
    """Which of so many frames a GIF shows, and how long each, in milliseconds: whole hundredths, right on average."""
    marks = [round(100 * i / rate) for i in range(count + 1)]  # where frames begin, in hundredths of a second
    end = max(marks[-1], SHORTEST)
    shown: list[int] = []
    for i, begin in enumerate(marks[:-1]):
        if end - begin >= SHORTEST and (not shown or begin - marks[shown[-1]] >= SHORTEST):
            shown.append(i)
    begins = [marks[i] for i in shown]
    return shown, [10 * (stop - begin) for begin, stop in zip(begins, [*begins[1:], end], strict=True)]


def _opened(files: Iterator[Path]) -> Iterator[Image.Image]:
    for file in files:
        with Image.open(file) as picture:
            yield picture.copy()
