"""What talking heads are learned from: features of sound by a speech model, faces of drawn heads by the observer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from referencenet.builtin.load import WEIGHTS, load_observer
from referencenet.builtin.toys import make_speech_model
from referencenet.paperdoll.portrait_layouts import Embed, Hear
from referencenet.preprocess.speech import SpeechFeatures, read_speech_model


def hearing(folder: str | Path | None = None) -> Hear:
    """Features by a wav2vec 2.0 model: of every frame what each layer of the encoder gives, (frames, layers, channels).

    Args:
        folder: Of the model, as `save_pretrained` writes it; None: the small one that the built-in weights hear by.

    Raises:
        FileNotFoundError: If there is none.
        CheckpointError: If a tensor is missing or not finite.
    """
    model = make_speech_model() if folder is None else read_speech_model(folder)

    @torch.no_grad()
    def hear(samples: np.ndarray, frames: int) -> np.ndarray:
        return SpeechFeatures(model, samples).of(range(frames))[:, 1:].numpy()

    return hear


def embedding(folder: Path = WEIGHTS) -> Embed:
    """Embeddings by the built-in observer, which knows drawn people, (64,) of length one.

    Args:
        folder: Of the built-in weights.
    """
    observer = load_observer(folder=folder)

    @torch.no_grad()
    def embed(frame: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1).unsqueeze(0).float() / 127.5 - 1
        return observer(pixels).embedding[0].numpy()

    return embed
