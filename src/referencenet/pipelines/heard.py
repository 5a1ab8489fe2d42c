"""What a talking portrait hears: speech features of every frame, given as numbers or made of a sound when needed.

Both are read clip by clip, with the neighbours of a clip's frames, so memory does not grow with the film. Letters: f
frames, k frames that are seen, w frames of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from referencenet.inputs import read_array
from referencenet.networks.neighbourhood import neighbours
from referencenet.preprocess.speech import SpeechFeatures


class FrameFeatures(Protocol):
    """Speech features by frame.

    Attributes:
        num_frames: That can be asked for.
        num_sounding: Of them those that belong to the film; behind them the last clip is filled with silence.
    """

    num_frames: int
    num_sounding: int

    def of(self, frames: Sequence[int]) -> Tensor:
        """(frames, layers, channels) of some frames."""
        ...


class _Given:
    """Features as numbers (frames, layers, channels)."""

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.num_frames = self.num_sounding = features.shape[0]

    def of(self, frames: Sequence[int]) -> Tensor:
        """Rows of the numbers."""
        return self.features[torch.as_tensor(frames)]


class _Spoken:
    """Features of a sound; of the encoder's states what its layers give, as published."""

    def __init__(self, speech: SpeechFeatures) -> None:
        self.speech = speech
        self.num_frames, self.num_sounding = speech.num_frames, speech.num_sounding

    def of(self, frames: Sequence[int]) -> Tensor:
        """Without the state that the first layer takes."""
        return self.speech.of(frames)[:, 1:]


def read_features(audio: Any, layers: int, channels: int) -> FrameFeatures:
    """Speech features as numbers, an .npy file, which stays on disk until parts of it are read, or of a sound.

    Args:
        audio: (frames, layers, channels), a tensor, an array or a path; or `SpeechFeatures`, as `hear` makes them.
        layers: Expected.
        channels: Expected.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If it is of no kind that holds features.
        ValueError: If the shape is another one, or values are not finite.
    """
    if isinstance(audio, SpeechFeatures):
        config = audio.model.config
        if (config.num_hidden_layers, config.hidden_size) != (layers, channels):
            raise ValueError(
                f"the speech model has {config.num_hidden_layers} layers of {config.hidden_size} channels; expected "
                f"{layers} of {channels}: give the one that the weights were trained with, wav2vec2-base-960h."
            )
        return _Spoken(audio)
    is_file = isinstance(audio, str | Path)
    if is_file and Path(audio).suffix.lower() != ".npy":
        raise ValueError(
            f"{audio} is no .npy file of speech features; of a sound they are made by pipe.hear(sound, speech_model)."
        )
    if not is_file and not isinstance(audio, np.ndarray | Tensor):
        raise TypeError(
            f"the audio is a {type(audio).__name__}; give features as a tensor, an array or an .npy file, or what "
            "pipe.hear(sound, speech_model) makes of a sound."
        )
    found = read_array(audio, f"speech features (frames, {layers}, {channels})", mapped=True) if is_file else audio
    features = found if isinstance(found, Tensor) else torch.from_numpy(found)
    if features.ndim != 3 or features.shape[0] < 1 or tuple(features.shape[1:]) != (layers, channels):
        raise ValueError(
            f"the audio is {tuple(features.shape)}; expected (frames, {layers}, {channels}): the layers of a speech "
            "model at 25 frames a second."
        )
    if not is_file and not bool(torch.isfinite(features).all()):
        raise ValueError("the audio holds features that are not finite; give numbers.")
    return _Given(features)


def around(features: FrameFeatures, cut: tuple[int, int], window: int) -> tuple[Tensor, Tensor]:
    """What a clip's frames and their neighbours hear; neighbours beyond the ends are the first or the last frame.

    Args:
        features: Of the whole film.
        cut: First frame of the clip, and the one behind its last.
        window: Frames of a neighbourhood, odd.

    Returns:
        Features of the frames that are seen, (k, layers, channels), and for each frame of the clip its neighbours'
        places among them, (f, w).
    """
    places = neighbours(*cut, window, features.num_frames)
    first = int(places.min())
    return features.of(range(first, int(places.max()) + 1)), places - first
