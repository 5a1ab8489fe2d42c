"""Pictures and films that are none, lie about themselves, or lead elsewhere."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image, PngImagePlugin

from films import picture, poses
from hostile.case import Table
from hostile.made import LFS, PAGE, Make, bytes_at, cut, pipe_at, with_holes
from referencenet.media.films import Film, write_film
from referencenet.media.images import read_image, read_mask

TABLE = Table("pictures")


def png(width: int, height: int, data: bytes = b"", *, depth: int = 8, colour: int = 2, extra: bytes = b"") -> bytes:
    """A PNG that claims such a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def text_chunk(size: int) -> bytes:
    """A comment that unpacks to so many bytes."""
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * size, zip=True)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def saved(name: str, mode: str = "RGB", **options: Any) -> Make:
    """A picture of 32 x 24."""
    return lambda folder: picture(0).convert(mode).save(folder / name, **options)


def refused(name: str, says: str, *make: Make, file: str = "p.png") -> None:
    """Add a file that is no picture."""
    TABLE.add(name, *make, call=lambda: read_image(file), says=says)


refused("no file", r"there is no picture p\.png")
refused("a folder", r"p\.png is a folder", lambda f: (f / "p.png").mkdir())
refused("a named pipe", r"p\.png is a pipe", pipe_at("p.png"))
refused("a device", r"random is a pipe or a device", file="/dev/random")
refused("a web address", r"is a web address; download", file="https://localhost/p.png")
refused("a name with a null byte", r"there is no picture|is not a name of a file", file="p\0.png")
refused("a name longer than any", r"is not a name of a file|there is no picture", file="p" * 5000)
refused("a link to itself", r"p\.png", lambda f: (f / "p.png").symlink_to("p.png"))
refused("nothing in the file", r"p\.png is empty", bytes_at("p.png", b""))
refused("a Git LFS pointer", r"p\.png is a Git LFS pointer", bytes_at("p.png", LFS))
refused("a web page", r"p\.png is a web page", bytes_at("p.png", PAGE))
refused("prose", r"p\.png is (no|not a) picture", bytes_at("p.png", "a thousand words " * 60))
refused("zeros", r"p\.png is (no|not a) picture", bytes_at("p.png", bytes(4096)))
refused("a drawing of shapes", r"p\.png is", bytes_at("p.png", '<svg xmlns="http://www.w3.org/2000/svg"/>'))
refused(
    "a program that prints",
    r"p\.png is (no|not a) picture",
    bytes_at("p.png", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
)
refused("a document", r"p\.png is (no|not a) picture", bytes_at("p.png", "%PDF-1.4\n1 0 obj\n<<>>\nendobj\n"))
refused("a film", r"p\.png is (no|not a) picture", lambda f: write_film(poses(2), f / "f.mp4").rename(f / "p.png"))
refused("half a PNG", r"p\.png.*cut short", saved("p.png"), cut("p.png"))
refused("half a JPEG", r"p\.jpg.*cut short", saved("p.jpg", quality=95), cut("p.jpg"), file="p.jpg")
refused(
    "half a WebP", r"p\.webp.*(cut short|is (no|not a) picture|damaged)", saved("p.webp"), cut("p.webp"), file="p.webp"
)
refused("a damaged PNG", r"p\.png.*(cut short|damaged|is (no|not a) picture)", bytes_at("p.png", png(8, 8, bytes(10))))
refused("a header alone", r"p\.png", bytes_at("p.png", png(64, 64)[:33]))
refused("ten thousand million pixels", r"p\.png.*pixels", bytes_at("p.png", png(100_000, 100_000)))
refused("four thousand million a side", r"p\.png", bytes_at("p.png", png(2**31 - 1, 2**31 - 1)))
refused("no pixel", r"p\.png", bytes_at("p.png", png(0, 0)))
refused("a comment of a gigabyte", r"p\.png", bytes_at("p.png", text_chunk(70 * 2**20)))
refused("a sparse file of a terabyte", r"p\.png is (no|not a) picture", with_holes("p.png", b"", 2**40))
refused(
    "an EMF drawing",
    r"p\.png is (no|not a) picture",
    bytes_at("p.png", b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(60)),
)


def colour_at(x: int, y: int, wanted: tuple[int, int, int], size: tuple[int, int]) -> Callable[[Image.Image], None]:
    """A check of one pixel and of the size."""

    def check(found: Image.Image) -> None:
        assert (found.mode, found.size) == ("RGB", size), (found.mode, found.size)
        seen: Any = found.getpixel((x, y))
        assert max(abs(a - b) for a, b in zip(seen, wanted, strict=True)) <= 6, seen

    return check


def half_red(folder: Path) -> None:
    """Red on the left, and turned by its camera."""
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    image.save(folder / "p.jpg", quality=100, subsampling=0, exif=exif)


def taken(name: str, make: Make, file: str, check: Callable[[Image.Image], None]) -> None:
    """Add a strange picture that is read rightly."""
    TABLE.add(name, make, call=lambda: read_image(file), gives=check)


RED = (255, 0, 0)
taken("turned by a camera", half_red, "p.jpg", colour_at(10, 5, RED, (20, 40)))
taken(
    "clear as glass",
    lambda f: Image.new("RGBA", (9, 5), (255, 0, 0, 0)).save(f / "p.png"),
    "p.png",
    colour_at(4, 2, (255, 255, 255), (9, 5)),
)
taken(
    "sixteen bits of grey",
    lambda f: Image.fromarray(np.full((5, 9), 65535, np.uint16)).save(f / "p.png"),
    "p.png",
    colour_at(4, 2, (255, 255, 255), (9, 5)),
)
taken(
    "four inks",
    lambda f: Image.new("CMYK", (9, 5), (0, 255, 255, 0)).save(f / "p.jpg", quality=100),
    "p.jpg",
    colour_at(4, 2, (254, 0, 0), (9, 5)),
)
taken(
    "one bit", lambda f: Image.new("1", (9, 5), 1).save(f / "p.png"), "p.png", colour_at(4, 2, (255, 255, 255), (9, 5))
)
taken(
    "a palette with a hole",
    lambda f: Image.new("P", (9, 5), 0).save(f / "p.png", transparency=0),
    "p.png",
    colour_at(4, 2, (255, 255, 255), (9, 5)),
)
taken(
    "the wrong ending",
    lambda f: Image.new("RGB", (9, 5), "red").save(f / "p.jpg", "PNG"),
    "p.jpg",
    colour_at(4, 2, RED, (9, 5)),
)
taken("one pixel", lambda f: Image.new("RGB", (1, 1), "red").save(f / "p.png"), "p.png", colour_at(0, 0, RED, (1, 1)))
taken(
    "a name of brackets, percents and a newline",
    lambda f: Image.new("RGB", (9, 5), "red").save(f / "[b]%d\n*.png"),
    "[b]%d\n*.png",
    colour_at(4, 2, RED, (9, 5)),
)
taken(
    "a name like an option",
    lambda f: Image.new("RGB", (9, 5), "red").save(f / "--help.png"),
    "--help.png",
    colour_at(4, 2, RED, (9, 5)),
)


def array(name: str, says: str, make: Callable[[], Any], read: Callable[[Any], Any] = read_image) -> None:
    """Add numbers that are no picture."""
    TABLE.add(f"arrays, {name}", call=lambda: read(make()), says=says)


array("NaN", "(NaN|finite)", lambda: np.full((8, 8, 3), np.nan))
array("infinity in a tensor", "(NaN|finite|infinite)", lambda: torch.full((3, 8, 8), float("inf")))
array("floats to 255", r"255|\[0, 1\]", lambda: np.full((8, 8, 3), 255.0))
array("below zero", r"-1|\[0, 1\]", lambda: np.full((8, 8, 3), -1.0))
array("seven channels", r"\(8, 8, 7\)", lambda: np.zeros((8, 8, 7), np.uint8))
array("a film for a picture", r"\(4, 8, 8, 3\)", lambda: np.zeros((4, 8, 8, 3), np.uint8))
array("no pixel", r"\(0, 8, 3\)|empty", lambda: np.zeros((0, 8, 3), np.uint8))
array("numbers with a sign", "int64", lambda: np.zeros((8, 8, 3), np.int64))
array("words", "type|dtype", lambda: np.array([["a", "b"]]))
array("objects", "type|dtype", lambda: np.array([[None, {}]], dtype=object))
array(
    "an enormous view of one number",
    "pixels|enormous|large",
    lambda: np.broadcast_to(np.uint8(7), (200_000, 200_000, 3)),
)
array("a list", "list", lambda: [1, 2, 3])
array("nothing", "NoneType|None", lambda: None)
array("a mask of NaN", "(NaN|finite)", lambda: np.full((8, 8), np.nan), read_mask)

# --- films ------------------------------------------------------------------------------------------------------------


def film(name: str, says: str, *make: Make, file: str = "f.mp4") -> None:
    """Add a file that is no film."""
    TABLE.add(f"films, {name}", *make, call=lambda: list(Film(file)), says=says)


NO_FILM = r"f\.mp4 is not a film that can be read"
film("no file", r"there is no film f\.mp4")
film("an empty folder", r"f\.mp4 has no frame", lambda f: (f / "f.mp4").mkdir())
film("a folder of hidden files", r"f\.mp4 has no frame", bytes_at("f.mp4/._0001.png", b"\0\5\x16\7"))
film(
    "a folder with a broken picture",
    r"0002\.png",
    lambda f: write_film(poses(2), f / "f"),
    bytes_at("f/0002.png", "oh"),
    file="f",
)
film("a named pipe", r"f\.mp4 is a pipe", pipe_at("f.mp4"))
film("nothing in the file", r"f\.mp4 is empty", bytes_at("f.mp4", b""))
film("a Git LFS pointer", r"f\.mp4 is a Git LFS pointer", bytes_at("f.mp4", LFS))
film("prose", NO_FILM, bytes_at("f.mp4", "Once upon a time " * 60))
film("a web address", "is a web address; download", file="https://localhost/f.mp4")
film("a name like a protocol", r"there is no film concat:a\.mp4", file="concat:a.mp4")
film(
    "a list of other files",
    NO_FILM,
    lambda f: write_film(poses(2), f / "secret.mp4"),
    bytes_at("f.mp4", "ffconcat version 1.0\nfile secret.mp4\n"),
)
film(
    "a playlist",
    NO_FILM,
    lambda f: write_film(poses(2), f / "secret.mp4"),
    bytes_at("f.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"),
)
film(
    "a stream's manifest",
    r"f\.mp4 is",
    bytes_at("f.mp4", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>'),
)
film(
    "a session description",
    NO_FILM,
    bytes_at("f.mp4", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
)
film("a script", NO_FILM, bytes_at("f.mp4", "#~mp4 LoadPlugin\nAviSource('secret.avi')\n"))
film("a film without its index", NO_FILM, lambda f: write_film(poses(4), f / "f.mp4"), cut("f.mp4", 0.6))
film("a sparse file of a terabyte", NO_FILM, with_holes("f.mp4", b"", 2**40))
film(
    "a picture as wide as ten thousand million pixels",
    r"f\.png",
    bytes_at("f.png", png(100_000, 100_000)),
    file="f.png",
)


def sound_alone(folder: Path) -> None:
    """A film's container with a track and no picture."""
    with av.open(str(folder / "f.mp4"), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


film("sound alone", r"f\.mp4.*(no picture|has no|no film|not a film)", sound_alone)
TABLE.add(
    "films, a name like a protocol that is there",
    lambda f: write_film(poses(2), f / "f.mp4").rename(f / "take:2.mp4"),
    call=lambda: list(Film("take:2.mp4")),
    gives=lambda found: len(found) == 2 or 1 / 0,
)
TABLE.add(
    "films, half of a webm",
    lambda f: write_film(poses(30), f / "f.webm"),
    cut("f.webm", 0.7),
    call=lambda: list(Film("f.webm")),
    gives=lambda found: 0 < len(found) < 30 or 1 / 0,
)
TABLE.add(
    "films, pictures that count by tens",
    *(lambda f, i=i: Image.new("RGB", (8, 8), (i, 0, 0)).save(f / f"{i}.png") for i in range(1, 13)),
    call=lambda: [frame.getpixel((0, 0))[0] for frame in Film(".")],
    gives=lambda seen: seen == list(range(1, 13)) or 1 / 0,
)
