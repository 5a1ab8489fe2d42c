"""Films and sound on disk, through PyAV, whose wheels bring FFmpeg with them."""

from __future__ import annotations

import os
import wave
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from referencenet.later import later
from referencenet.media.decoding import pictures
from referencenet.media.records import as_text

if TYPE_CHECKING:
    import av
else:
    (av,) = later("av")  # scenes are drawn without it


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    fps: int,
    *,
    audio: np.ndarray | None = None,
    sample_rate: int = 16000,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write frames as an H.264 film, with sound as AAC if there is any.

    Args:
        path: Where to; `.mp4`.
        frames: Each (height, width, 3) uint8, all of one size, even both ways.
        fps: Frames a second.
        audio: (samples,) floats in [-1, 1].
        sample_rate: Samples a second.
        record: What decided the film, to stand in it as its comment, see `media.records`.

    Returns:
        The path.
    """
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        if record is not None:
            container.metadata["comment"] = as_text(record)
        picture = container.add_stream("libx264", rate=fps, options={"crf": "12", "preset": "veryfast"})
        picture.pix_fmt = "yuv420p"
        picture.codec_context.thread_count = 1
        sound = container.add_stream("aac", rate=sample_rate, layout="mono") if audio is not None else None
        count = 0
        for frame in frames:
            height, width = frame.shape[:2]
            if count == 0:
                if width % 2 or height % 2:
                    raise ValueError(f"frames are {width} x {height}; expected even numbers, as H.264 films need them")
                picture.width, picture.height = width, height
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            count += 1
        if not count:
            raise ValueError("frames is empty; expected at least one frame")
        container.mux(picture.encode())
        if sound is not None and audio is not None:
            samples = av.AudioFrame.from_ndarray(audio[None].astype(np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = sample_rate, 0, Fraction(1, sample_rate)
            container.mux(sound.encode(samples))
            container.mux(sound.encode())
    return Path(path)


def read_video(path: str | os.PathLike[str]) -> np.ndarray:
    """Read all frames of a film; (frames, height, width, 3) uint8."""
    return np.stack([np.asarray(frame) for frame in pictures(Path(path))])


def write_wav(path: str | os.PathLike[str], audio: np.ndarray, sample_rate: int) -> Path:
    """Write sound, (samples,) floats in [-1, 1], as 16-bit mono."""
    data = np.rint(np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(data)
    return Path(path)


def read_wav(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Read 16-bit mono sound: (samples,) float32 in [-1, 1] and samples a second."""
    with wave.open(str(path), "rb") as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            given = f"{file.getnchannels()} channels of {8 * file.getsampwidth()} bits"
            raise ValueError(f"{path} has {given}; expected 16-bit mono")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32767, file.getframerate()
