"""Sounds to test with: files of every format, tones, clicks, and a narrow wav2vec 2.0."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from transformers import Wav2Vec2Config, Wav2Vec2Model

from referencenet.methods.tiny import filled

CODECS = {
    ".wav": "pcm_f32le", ".mp3": "libmp3lame", ".m4a": "aac", ".flac": "flac", ".ogg": "libopus", ".mp4": "aac"
}  # fmt: skip


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    """(samples,) float32, of half the full scale."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_sound(path: Path, samples: np.ndarray, rate: int, layout: str = "mono", start: int = 0) -> Path:
    """Write (samples,) or (channels, samples); the file's first `start` samples are missing, not silent."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(CODECS[path.suffix], rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(np.atleast_2d(samples)), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), start
        if samples.shape[-1]:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def tiny_wav2vec(norm: str = "group", seed: int = 0) -> Wav2Vec2Model:
    """wav2vec 2.0, narrow, with random weights."""
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
    )
    return filled(Wav2Vec2Model(config), seed)
