"""Films decoded: the one place where FFmpeg is asked to open what somebody hands over.

A file is a file: its name is never read as an address, a list of other files is not followed, and only containers are
opened that hold what they show. Frames come as a player shows them: upright, with square pixels, in the colours that
the film's tags say, without what an edit list cuts away; transparent parts are black, as in every film here. Untagged
colours are read as BT.601, as FFmpeg does. Packets that do not decode are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from referencenet.inputs import regular_file
from referencenet.later import later
from referencenet.media.images import MAX_PIXELS, flattened

if TYPE_CHECKING:
    import av
    import numpy as np
    from av.sidedata import sidedata
else:
    av, np, sidedata = later("av", "numpy", "av.sidedata.sidedata")

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,mpegts,mpeg,mpegvideo,flv,ogg,asf,wav,w64,mp3,flac,aac,ac3,"
    "aiff,caf,au,amr,ape,wv,tta,ivf,h264,hevc,obu,m4v,nut,mxf,dv,rm,swf"
)
"""What FFmpeg may take a file for: no lists of files, no addresses, no devices, no single pictures."""

MAX_RATE = 1000  # frames per second, beyond which a file's own number is not believed
CLOCK = 0.011  # seconds by which steps differ through rounding: GIF counts hundredths
WIDEST_PIXEL = 4  # of a pixel's width over its height, or the other way round

TURNS: dict[tuple[int, int, int, int], Image.Transpose] = {
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
"""Signs of a display matrix' (a, b, c, d) to what turns the picture upright."""

HIGH_RANGE = {16: "PQ", 18: "HLG"}
"""Transfer characteristics of films of high dynamic range (ITU-T H.273)."""


HIDDEN = object()
"""In the place of a frame that is decoded but not shown."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a look at every frame of a film says.

    Attributes:
        num_frames: That decode.
        num_lost: Packets that do not.
        is_steady: Whether frames follow each other in equal steps of time.
        step: Seconds from a frame to the next, on average; 0 where there is one frame, or none has a time.
    """

    num_frames: int
    num_lost: int
    is_steady: bool
    step: float


def opened(path: Path, what: str, advice: str) -> Any:
    """A container of FFmpeg, open for reading.

    Args:
        path: Of the file.
        what: It is expected to be, for errors.
        advice: What to do if it cannot be read.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is no such file.
    """
    file = regular_file(path, what)
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        return av.open(address(file), options=options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a {what} that can be read ({reason(error)}); {advice}.") from error


def address(path: Path) -> str:
    """A file as FFmpeg takes it for nothing else, whatever its name: with a colon it would be an address."""
    return f"file:{path.absolute()}"


def reason(error: Exception) -> str:
    """What FFmpeg says, without the address that it was given."""
    said = getattr(error, "strerror", None) or str(error)
    known = {"Invalid argument": "a list of files, or of a kind that is not read"}
    return known.get(said, "cut short, or of another kind" if said.startswith("Invalid data found") else said)


def opened_film(path: Path) -> Any:
    """A film, open for reading.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it cannot be read, has no moving picture, or an enormous one.
    """
    container = opened(path, "film", "export it again as mp4 or webm")
    stream = picture_stream(container)
    if stream is None:
        container.close()
        raise ValueError(f"{path} has no picture stream; give a film, not only sound.")
    if stream.codec_context is None:
        container.close()
        raise ValueError(f"{path} holds pictures of an unknown kind; export it again as mp4 or webm.")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        container.close()
        raise ValueError(f"{path} is {width} x {height}; frames of at most {MAX_PIXELS // 10**6} million pixels are "
                         "read: make it smaller first.")  # fmt: skip
    return container


def picture_stream(container: Any) -> Any:
    """A container's first moving picture; the cover of an album is none."""
    streams = [s for s in container.streams.video if not int(s.disposition) & int(av.stream.Disposition.attached_pic)]
    return streams[0] if streams else None


def rate_of(stream: Any) -> Fraction | None:
    """Frames per second that a film says of itself, if it can be true."""
    rate = stream.average_rate or stream.guessed_rate
    return rate if rate is not None and 0 < rate <= MAX_RATE else None


def pictures(path: Path) -> Iterator[Image.Image]:
    """A film's frames as a player shows them, mode RGB, in order."""
    with closing(opened_film(path)) as container:
        shape = pixel_shape(picture_stream(container))
        yield from (upright(frame, shape) for frame in _frames(container) if frame not in (None, HIDDEN))


def surveyed(path: Path) -> Survey:
    """Decode a film once, without keeping anything."""
    count = lost = 0
    times: list[float] = []
    with closing(opened_film(path)) as container:
        claimed = picture_stream(container).frames  # 0 where the container does not say
        for frame in _frames(container):
            if frame is None:
                lost += 1
            elif frame is not HIDDEN:
                count += 1
                times += [] if frame.time is None else [frame.time]
            claimed -= frame is HIDDEN
    lost = max(lost, claimed - count)
    steps = np.diff(np.asarray(times))
    usual = float(np.median(steps)) if len(steps) else 0.0
    is_steady = not len(steps) or float(np.abs(steps - usual).max()) <= max(usual / 2, CLOCK)
    return Survey(num_frames=count, num_lost=lost, is_steady=is_steady, step=float(steps.mean()) if len(steps) else 0.0)


def upright(frame: Any, shape: Fraction = Fraction(1)) -> Image.Image:
    """A frame as a player shows it, mode RGB.

    Args:
        frame: Of FFmpeg.
        shape: Of its pixels, width over height.
    """
    if frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components):
        picture = flattened(Image.fromarray(frame.to_ndarray(format="rgba")), background="black")
    else:
        picture = frame.to_image()
    if shape != 1:
        picture = picture.resize((max(1, round(picture.width * shape)), picture.height), Image.Resampling.BICUBIC)
    matrix = frame.side_data.get(sidedata.Type.DISPLAYMATRIX)
    turn = None if matrix is None else TURNS.get(_signs(bytes(matrix)))
    return picture if turn is None else picture.transpose(turn)


def pixel_shape(stream: Any) -> Fraction:
    """Width over height of a film's pixels."""
    shape = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return shape if shape and Fraction(1, WIDEST_PIXEL) <= shape <= WIDEST_PIXEL else Fraction(1)


def _frames(container: Any) -> Iterator[Any]:
    """FFmpeg's frames in order; None for a packet that does not decode, `HIDDEN` for one that an edit list hides."""
    packets = container.demux(picture_stream(container))
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:  # the end of a film that is cut short
            yield None
            return
        if packet is None:
            return
        if packet.is_discard:
            yield HIDDEN
        try:
            yield from (frame if frame.width * frame.height <= MAX_PIXELS else None for frame in packet.decode())
        except av.error.FFmpegError:
            yield None


def _signs(matrix: bytes) -> tuple[int, int, int, int]:
    """(a, b, c, d) of a display matrix, nine numbers of 32 bits, as signs; what is far smaller than the rest is 0."""
    a, b, _, c, d = (int(number) for number in np.frombuffer(matrix[:20], dtype=np.int32))
    largest = max(map(abs, (a, b, c, d)))
    first, second, third, fourth = ((2 * abs(n) > largest) * (1 if n > 0 else -1) for n in (a, b, c, d))
    return first, second, third, fourth
