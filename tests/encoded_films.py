"""Films encoded by PyAV alone, with what cameras and cutters leave in files."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RAW = np.random.default_rng(4).integers(0, 256, (32, 64, 3), dtype=np.uint8)


def textured(i: int) -> np.ndarray:
    """A frame that only motion tells from its neighbours, so that it cannot be decoded alone."""
    return np.roll(RAW, i, axis=1)


def encode(path: Path, count: int = 30, *, turn: int = 0, shape: Fraction | None = None, begin: int = 0,
           steps: Any = None, frame: Callable[[int], np.ndarray] = textured, comment: str = "") -> Path:  # fmt: skip
    """A film by PyAV; its time begins `begin` frames before its first shown one."""
    with av.open(f"file:{path}", "w") as container:
        container.metadata["comment"] = comment
        stream: Any = container.add_stream("libx264", rate=25, options={"g": "12", "bf": "0", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        if turn:
            stream.set_display_rotation(turn)
        if shape is not None:
            stream.codec_context.sample_aspect_ratio = shape
        packets = []
        for i in range(count):
            packets += stream.encode(av.VideoFrame.from_ndarray(frame(i), format="rgb24"))
        for i, packet in enumerate([*packets, *stream.encode(None)]):
            time = round((steps[i] if steps else i - begin) / 25 / packet.time_base)
            packet.pts = packet.dts = time
            container.mux(packet)
    return path
