"""Sounds that are none, lie about themselves, or unpack to more than memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from hostile.case import Table
from hostile.made import LFS, PAGE, Make, bytes_at, cut, once, pipe_at, with_holes
from referencenet.media.sound import SAMPLE_RATE, check_sound, read_sound
from sounds import tone, write_sound

TABLE = Table("sounds")


def wav(
    data: bytes, *, rate: int = 16000, channels: int = 1, bits: int = 16, form: int = 1, claimed: int | None = None
) -> bytes:
    """A wav file whose header says what is wanted."""
    size = len(data) if claimed is None else claimed
    block = min(channels * bits // 8, 65535)
    header = struct.pack("<HHIIHH", form, channels, rate, min(rate * block, 2**32 - 1), block, bits)
    return (
        b"RIFF"
        + struct.pack("<I", min(36 + size, 2**32 - 1))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + header
        + (b"data" + struct.pack("<I", size) + data)
    )


def silence(seconds: float, codec: str, rate: int = 1000) -> Callable[[Path], None]:
    """Hours of silence, packed to next to nothing."""

    def make(folder: Path) -> None:
        with av.open(str(folder / "s.mka"), "w") as container:
            stream: Any = container.add_stream(codec, rate=rate, layout="mono")
            block = np.zeros((1, rate * 60), dtype=np.int16)
            for minute in range(round(seconds / 60)):
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), minute * rate * 60
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    return make


def gaps(folder: Path) -> None:
    """A hundred blips, nearly an hour apart, as their time stamps say."""
    with av.open(str(folder / "s.mka"), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for i in range(100):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 1600), dtype=np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), i * 3599 * 16000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def refused(name: str, says: str, *make: Make, file: str = "s.wav", **rest: Any) -> None:
    """Add a sound that is not read."""
    TABLE.add(name, *make, call=lambda: read_sound(Path(file)), says=says, **rest)


def held(*, peak: float, seconds: float) -> Callable[[np.ndarray], None]:
    """A check of samples that are read."""

    def check(samples: np.ndarray) -> None:
        assert samples.dtype == np.float32
        assert abs(len(samples) / SAMPLE_RATE - seconds) < 0.01, len(samples) / SAMPLE_RATE
        assert abs(float(np.abs(samples).max()) - peak) < 0.02, np.abs(samples).max()

    return check


refused("no file", r"there is no sound s\.wav")
refused("a folder", r"s\.wav is a folder", lambda f: (f / "s.wav").mkdir())
refused("a named pipe", r"s\.wav is a pipe", pipe_at("s.wav"))
refused("a device", r"zero is a pipe or a device", file="/dev/zero")
refused("nothing in the file", r"s\.wav is empty", bytes_at("s.wav", b""))
refused("a Git LFS pointer", r"s\.wav is a Git LFS pointer", bytes_at("s.wav", LFS))
refused("a web page", r"s\.wav is a web page", bytes_at("s.wav", PAGE))
refused("prose", r"s\.wav is not a sound that can be read .*export it again", bytes_at("s.wav", "Hello there. " * 40))
refused("a web address", r"is a web address; download", file="http://localhost/s.wav")
refused("a name like a protocol", r"there is no sound take:2\.wav", file="take:2.wav")
refused(
    "a list of other files",
    r"s\.wav is not a sound that can be read",
    bytes_at("s.wav", "ffconcat version 1.0\nfile secret.wav\n"),
    lambda f: write_sound(f / "secret.wav", tone(0.1, 16000), 16000),
)
refused(
    "a playlist",
    r"s\.wav is not a sound that can be read",
    bytes_at("s.wav", "#EXTM3U\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n"),
)
refused(
    "a session description",
    r"s\.wav is not a sound that can be read",
    bytes_at("s.wav", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"),
)
refused("a film without sound", r"hero\.png.*(no sound|not a sound)", once("hero"), file="hero.png")
refused("half a header", r"s\.wav is not a sound that can be read", bytes_at("s.wav", wav(b"")[:20]))
refused("no sample", r"s\.wav has no sample", bytes_at("s.wav", wav(b"")))
refused("a rate of one hertz", r"s\.wav.* 1 hertz", bytes_at("s.wav", wav(bytes(2**20), rate=1)))
refused(
    "a rate of four billion",
    r"s\.wav.*(hertz|can(not)? be read)",
    bytes_at("s.wav", wav(bytes(2**16), rate=2**32 - 1)),
)
refused("a rate of none", r"s\.wav.*(hertz|can(not)? be read)", bytes_at("s.wav", wav(bytes(2**16), rate=0)))
refused(
    "more channels than there are",
    r"s\.wav.*can(not)? be read",
    bytes_at("s.wav", wav(bytes(2**17), channels=65535)),
)
refused(
    "NaN",
    r"s\.wav holds NaN or infinite samples, the first at 0\.0",
    bytes_at("s.wav", wav(np.full(1600, np.nan, "<f4").tobytes(), bits=32, form=3)),
)
refused(
    "numbers of another range",
    r"s\.wav has samples up to 3\d+.*Divide by",
    bytes_at("s.wav", wav((tone(0.2, 16000) * 65536).astype("<f4").tobytes(), bits=32, form=3)),
)
refused("hours of silence in a small file", r"s\.mka.*longer than 3 hours", silence(4 * 3600, "flac"), file="s.mka")
refused("gaps of a hundred hours", r"s\.mka.*longer than 3 hours", gaps, file="s.mka")
refused(
    "a sparse file of a terabyte",
    r"s\.wav.*longer than 3 hours",
    with_holes("s.wav", wav(b"", claimed=2**32 - 1), 2**40),
)
TABLE.add(
    "a header that claims more than there is",
    bytes_at("s.wav", wav(bytes(3200), claimed=2**31)),
    call=lambda: read_sound(Path("s.wav")),
    gives=held(peak=0, seconds=0.1),
)
refused(
    "half a file",
    r"s\.flac cannot be read as sound \(cut short",
    lambda f: write_sound(f / "s.flac", np.random.default_rng(0).uniform(-1, 1, 16000).astype(np.float32), 16000),
    cut("s.flac"),
    file="s.flac",
)
TABLE.add(
    "a name with a percent sign and a newline",
    lambda f: write_sound(f / "100%d\n[x].wav", tone(0.5, 16000), 16000),
    call=lambda: read_sound(Path("100%d\n[x].wav")),
    gives=held(peak=0.5, seconds=0.5),
)
TABLE.add(
    "a link to a sound",
    lambda f: write_sound(f / "a.wav", tone(0.5, 16000), 16000),
    lambda f: (f / "s.wav").symlink_to("a.wav"),
    call=lambda: read_sound(Path("s.wav")),
    gives=held(peak=0.5, seconds=0.5),
)
TABLE.add(
    "eight bits",
    bytes_at("s.wav", wav(bytes([0, 255] * 4000), bits=8)),
    call=lambda: read_sound(Path("s.wav")),
    gives=held(peak=1.0, seconds=0.5),
)


def samples(name: str, says: str, make: Callable[[], Any]) -> None:
    """Add samples that are not taken."""
    TABLE.add(f"samples {name}", call=lambda: read_sound(make()), says=says)


samples("of words", r"samples are of type <U\d+; expected floats", lambda: np.array(["a", "b"]))
samples("of truth values", r"samples are of type bool; expected floats", lambda: np.zeros(100, dtype=bool))
samples("of no sign", r"samples are of type uint8; expected floats", lambda: np.zeros(100, dtype=np.uint8))
samples("of three axes", r"samples of shape \(1, 1, 100\) were given", lambda: np.zeros((1, 1, 100)))
samples("of a thousand channels", r"samples of shape \(1000, 10\) were given", lambda: np.zeros((1000, 10)))
samples("of none", r"has no sample", lambda: torch.zeros(0))
samples("of infinity", r"holds NaN or infinite samples", lambda: torch.full((100,), float("inf")))
samples("at a rate of none", r"rate.*0.*hertz", lambda: read_sound(np.zeros(100), rate=0))
samples("at a rate of one hertz", r"rate.*1.*hertz", lambda: read_sound(np.zeros(10**6), rate=1))
TABLE.add(
    "a text for a sound on the command line",
    once("hero"),
    once("said"),
    bytes_at("said.wav", "words"),
    typed=("talk", "-r", "hero.png", "--face", "face.npz", "-a", "said.wav", "--random-tiny", "-o", "o.mp4"),
    says=r"said\.wav is not a sound that can be read",
)
TABLE.add(
    "a sound that is checked is only opened",
    bytes_at("s.wav", wav(bytes(320))),
    call=lambda: check_sound(Path("s.wav")),
)
