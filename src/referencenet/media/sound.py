"""Sound in and out: whatever PyAV reads becomes mono samples at 16 kHz, and a film gets a track that stays in step.

Sound is read block by block, so memory does not depend on how it is packed: one hour of mono samples is 230 MB.
Channels are mixed by weights that add up to one, so nothing is louder than full scale; the subwoofer's is left out.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from referencenet.later import later
from referencenet.media.decoding import opened, reason

if TYPE_CHECKING:
    import av
    import numpy as np
    import torch
else:
    av, np, torch = later("av", "numpy", "torch")  # a sound's file is read without torch

SAMPLE_RATE = 16000  # hertz
TRACK_RATE = 48000  # hertz, of tracks that are written: both codecs take it
TRACK_CODECS = {".mp4": ("aac", 192_000), ".webm": ("libopus", 128_000)}
"""Ending of a film to the codec of its track and its bits a second: with fewer, AAC rings where a tone breaks off."""

RATES = range(1000, 1_000_001)  # hertz of sounds that are read
LONGEST = 3 * 3600  # seconds of a sound: 690 MB

MAX_PEAK = 8.0  # beyond full scale; what is louder is no sound in [-1, 1] but numbers of another range
SHORTEST_GAP, LONGEST_GAP = 0.05, 3600.0  # seconds: gaps in a track are silent, but for what clocks are off by
CENTRE = 2**-0.5  # share of a middle channel on either side

Sound = Union[str, Path, "np.ndarray", "torch.Tensor"]
"""A file with sound, or samples."""


def read_sound(source: Sound, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Read a sound.

    Args:
        source: A file: wav, mp3, m4a, flac, ogg, a film with a track, or whatever else FFmpeg reads. Or samples:
            (samples,) or (channels, samples), floats in [-1, 1] or integers of their type's range.
        rate: Samples a second, of samples.

    Returns:
        (samples,), float32 in [-1, 1], mono, at 16 kHz. A film's track begins with the film.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If samples are of another type.
        ValueError: If it holds no sound, no sample, more than three hours of it, or samples that are not finite or far
            outside [-1, 1].
    """
    name = str(source) if isinstance(source, str | Path) else "the sound"
    if isinstance(source, str | Path):
        found = _resampled(_blocks(Path(source)), name)
    else:
        mono = _given(source)
        _check_rate(rate, name)
        found = mono if rate == SAMPLE_RATE else _resampled(iter([(mono[None], rate)]), name)
    if not found.size:
        raise ValueError(f"{name} has no sample; give a sound that is not empty.")
    peak = max(float(found.max()), -float(found.min()))
    if not np.isfinite(peak):
        wrong = ~np.isfinite(found)
        first = int(wrong.argmax()) / SAMPLE_RATE
        raise ValueError(f"{name} holds NaN or infinite samples, the first at {first:.2f} s; export it again.")
    if peak > MAX_PEAK:
        raise ValueError(
            f"{name} has samples up to {peak:.6g}; expected floats in [-1, 1]. Divide by the range of the numbers, "
            "such as 32768."
        )
    return np.clip(found, -1, 1, out=found if found.flags.writeable else None)


def check_sound(path: Path) -> None:
    """Make sure that a file holds sound, before anything is made for it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or has no track.
    """
    _opened(path).close()


def _given(samples: np.ndarray | torch.Tensor) -> np.ndarray:
    """Samples as mono float32."""
    array = samples.detach().cpu().numpy() if hasattr(samples, "detach") else samples
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= len(array) <= 32):
        raise ValueError(f"samples of shape {array.shape} were given; expected (samples,) or (channels, samples).")
    if array.dtype.kind not in "if":
        raise TypeError(f"samples are of type {array.dtype}; expected floats in [-1, 1] or signed integers.")
    floats = array / -float(np.iinfo(array.dtype).min) if array.dtype.kind == "i" else array
    mono = floats.astype(np.float32) if floats.ndim == 1 else floats.mean(axis=0, dtype=np.float64).astype(np.float32)
    return np.ascontiguousarray(mono)


def _check_rate(rate: int, name: str) -> None:
    """Refuse what is no rate of samples."""
    if rate not in RATES:
        raise ValueError(
            f"{name} has a rate of {rate} hertz; expected {RATES.start} to {RATES.stop - 1} samples a second"
        )


def _resampled(blocks: Iterator[tuple[np.ndarray, int]], name: str) -> np.ndarray:
    """Blocks (1, samples) of some rate as one array (samples,) at 16 kHz."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
    found = bytearray()  # grows in place: joining a list of blocks would take the memory twice
    position = 0
    for block, rate in blocks:
        if position + block.shape[1] > LONGEST * rate:
            raise ValueError(f"{name} is longer than {LONGEST // 3600} hours; cut it into pieces.")
        for frame in resampler.resample(_frame(block, rate, position)):
            found += frame.to_ndarray().tobytes()
        position += block.shape[1]
    if position:
        for frame in resampler.resample(None):
            found += frame.to_ndarray().tobytes()
    return np.frombuffer(found, dtype=np.float32)


def _frame(block: np.ndarray, rate: int, position: int) -> av.AudioFrame:
    """Samples (channels, samples) as PyAV takes them."""
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(block), format="fltp", layout="mono" if len(block) == 1 else "stereo"
    )
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), position
    return frame


def _opened(path: Path) -> Any:
    """A file with sound.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it cannot be read, or has no track.
    """
    container = opened(path, "sound", "export it again as wav, mp3, m4a, flac or ogg")
    if not container.streams.audio:
        container.close()
        raise ValueError(f"{path} has no sound; give a sound, or a film with a track.")
    return container


def _blocks(path: Path, wide: bool = False) -> Generator[tuple[np.ndarray, int]]:
    """A file's sound from the beginning of the file, and its rate.

    Args:
        path: The file.
        wide: Two channels instead of one.

    Yields:
        (1 or 2, samples) float32, and samples a second.
    """
    with _opened(path) as container:
        stream = container.streams.audio[0]
        unpack = av.AudioResampler(format="fltp")
        begin = (container.start_time or 0) / av.time_base  # of the film, whose sound may begin later
        position = 0  # in samples
        try:
            _check_rate(getattr(stream, "rate", None) or 0, "it")  # a damaged header may leave it out
            if (container.duration or 0) > LONGEST * av.time_base:
                raise ValueError(f"it says that it is longer than {LONGEST // 3600} hours; cut it into pieces")
            for frame in container.decode(stream):
                rate = frame.sample_rate
                missing = 0 if frame.time is None else round((frame.time - begin) * rate) - position
                if missing > LONGEST_GAP * rate:
                    raise ValueError(f"a gap of {missing / rate:.0f} s")
                if missing > (SHORTEST_GAP * rate if position else 0):
                    yield np.zeros((1 + wide, missing), dtype=np.float32), rate
                    position += missing
                for plain in unpack.resample(frame):
                    yield _mix([channel.name for channel in plain.layout.channels], wide) @ plain.to_ndarray(), rate
                    position += plain.samples
        except (av.error.FFmpegError, ValueError) as error:
            why = reason(error) if isinstance(error, av.error.FFmpegError) else error
            raise ValueError(f"{path} cannot be read as sound ({why}); export it again.") from error


def _mix(names: Sequence[str], wide: bool) -> np.ndarray:
    """Weights (1 or 2, channels) of channels by their names, such as FL, FC and LFE."""
    sides = np.array([
        [0.0 if name.startswith("LFE") else {own: 1.0, other: 0.0}.get(name[-1:], CENTRE) for name in names]
        for own, other in ("LR", "RL")
    ])  # fmt: skip
    weights = sides if wide else sides.sum(axis=0, keepdims=True)
    if not weights.any():  # a subwoofer alone
        weights = np.ones_like(weights)
    return (weights / weights.sum(axis=1).max()).astype(np.float32)


class Track:
    """A track of a film that is being written.

    Args:
        container: The film; nothing has been written to it yet.
        source: Whose sound.
        ending: Of the film, one of `TRACK_CODECS`.
        seconds: The film's length: the sound is cut there.
    """

    def __init__(self, container: Any, source: Path, ending: str, seconds: Fraction) -> None:
        with _opened(source) as opened:
            self.wide = opened.streams.audio[0].channels > 1
        self.container, self.source, self.seconds = container, source, seconds
        codec, bits = TRACK_CODECS[ending]
        self.stream: Any = container.add_stream(codec, rate=TRACK_RATE, layout="stereo" if self.wide else "mono")
        self.stream.bit_rate = bits
        self.packets = self._encoded()
        self.waiting: Any = None

    def write_until(self, seconds: Fraction | None = None) -> None:
        """Write what is heard before a moment; None: the rest. Pictures and sound then lie beside each other."""
        while True:
            self.waiting = next(self.packets, None) if self.waiting is None else self.waiting
            if self.waiting is None:
                return
            if seconds is not None and self.waiting.dts * self.waiting.time_base > seconds:
                return
            self.container.mux(self.waiting)
            self.waiting = None

    def _encoded(self) -> Iterator[Any]:
        position = 0
        with closing(_blocks(self.source, self.wide)) as blocks:
            for block, rate in blocks:
                block = block[:, : max(0, round(self.seconds * rate) - position)]
                if not block.size:
                    break
                yield from self.stream.encode(_frame(block, rate, position))
                position += block.shape[1]
        yield from self.stream.encode(None)
