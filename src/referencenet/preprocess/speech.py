"""Features of speech for each frame of a film, by a wav2vec 2.0 model of the user's.

Up to a minute the model runs on the whole sound, as published. A longer sound is an approximation: the encoder, which
would attend to all of it, sees pieces of half a minute with five seconds more on either side; normalisation,
convolutions and the places of the frames stay those of the whole sound. Pieces are made when they are needed, so
memory does not depend on the length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import Wav2Vec2Model

from referencenet.checkpoints.library import read_library_part
from referencenet.checkpoints.published import Part
from referencenet.media.sound import SAMPLE_RATE, Sound, read_sound
from referencenet.networks.wav2vec import convolved, encoded, field_of, first_statistics, hop_of, speech_states

RATE = Fraction(25)  # frames a second, of most systems
WHOLE = 60  # seconds up to which the model runs on the whole sound
PIECE, CONTEXT = 30, 5  # seconds
STRETCH = 500  # steps of the convolutions that are made together, ten seconds: exact, and small
VARIANCE_FLOOR = 1e-7  # as published, in wav2vec 2.0's own preparation of sounds
WAV2VEC = Part(
    kind=Wav2Vec2Model,
    folder="wav2vec/wav2vec2-base-960h",
    source="huggingface.co/facebook/wav2vec2-base-960h (Apache-2.0)",
)
"""The speech model of the field's talking heads, where Hallo's release has it."""

KEPT = 2  # pieces: windows of a film lie in at most so many


def read_speech_model(folder: str | Path) -> Wav2Vec2Model:
    """Read a wav2vec 2.0 model, such as facebook/wav2vec2-base-960h, from its folder, strictly.

    Raises:
        FileNotFoundError: If there is none.
        CheckpointError: If a tensor is missing or not finite.
    """
    unmasked = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}  # the mask's embedding serves training, and is absent
    return read_library_part(Wav2Vec2Model, folder, **unmasked).eval().requires_grad_(False)


def read_speech(sound: Sound, model: Wav2Vec2Model) -> np.ndarray:
    """Samples (samples,) at 16 kHz, enough of them for a model.

    Raises:
        ValueError: If the sound cannot be read, or is shorter than one step of the model.
    """
    samples, field = read_sound(sound), field_of(model)
    if len(samples) < field:
        raise ValueError(
            f"the sound has {len(samples)} samples ({len(samples) / SAMPLE_RATE:.3f} s); expected at least {field} "
            f"({field / SAMPLE_RATE:.3f} s), one step of the model."
        )
    return samples


def num_frames_of(num_samples: int, rate: Fraction | int) -> int:
    """Frames of a film as long as so many samples at 16 kHz."""
    return ceil(Fraction(num_samples, SAMPLE_RATE) * Fraction(rate))


class SpeechFeatures:
    """Features of a sound, frame by frame.

    Args:
        model: wav2vec 2.0, in evaluation mode.
        sound: Whose; see `media.sound.read_sound`.
        rate: Frames per second.
        multiple: The film's frames are rounded up to a multiple of it, and the sound goes on with silence, as Hallo
            does to fill its last clip.

    Attributes:
        num_sounding: Frames of the sound itself.
        num_frames: Of the film: of the sound, rounded up.
        pieces: (start, stop) of the frames that are made together; one piece is exact, several are an approximation.

    Raises:
        ValueError: If the sound cannot be read, or is shorter than one step of the model.
    """

    def __init__(self, model: Wav2Vec2Model, sound: Sound, *, rate: Fraction | int = RATE, multiple: int = 1) -> None:
        rate = Fraction(rate)
        if rate <= 0 or multiple < 1:
            raise ValueError(f"rate is {rate} and multiple {multiple}; expected more than 0, and at least 1.")
        self.model, self.rate = model, rate
        self.samples = read_speech(sound, model)
        field, hop = field_of(model), hop_of(model)
        self.num_sounding = num_frames_of(len(self.samples), rate)
        added = -self.num_sounding % multiple
        self.num_frames = self.num_sounding + added
        self.num_samples = len(self.samples) + round(added * SAMPLE_RATE / rate)
        self.num_steps = (self.num_samples - field) // hop + 1
        self.mean, self.deviation = moments(self.samples)
        length = self.num_frames if self.num_samples <= WHOLE * SAMPLE_RATE else round(PIECE * rate)
        self.pieces = [(i, min(i + length, self.num_frames)) for i in range(0, self.num_frames, length)]
        self.statistics = first_statistics(model, self._wave, self.num_samples) if len(self.pieces) > 1 else None
        self.made: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.num_frames

    def __iter__(self) -> Iterator[Tensor]:
        """All features, piece by piece: (frames, layers + 1, width) each."""
        return (self._piece(i) for i in range(len(self.pieces)))

    def of(self, frames: Sequence[int]) -> Tensor:
        """Features of some frames.

        Args:
            frames: Their numbers; those before the first are the first, those behind the last one the last.

        Returns:
            (frames, layers + 1, width): what the encoder's first layer takes, and what each layer gives.
        """
        length = self.pieces[0][1]
        places = [min(max(frame, 0), self.num_frames - 1) for frame in frames]
        return torch.stack([self._piece(place // length)[place % length] for place in places])

    def around(self, frames: Sequence[int], radius: int = 2) -> Tensor:
        """Features of frames with their neighbours: (frames, 2 radius + 1, layers + 1, width)."""
        offsets = range(-radius, radius + 1)
        return self.of([frame + offset for frame in frames for offset in offsets]).unflatten(0, (-1, len(offsets)))

    def _piece(self, number: int) -> Tensor:
        """Features of a piece, (frames, layers + 1, width)."""
        if number not in self.made:
            self.made = {key: self.made[key] for key in sorted(self.made)[1 - KEPT :]}
            start, stop = self.pieces[number]
            if len(self.pieces) == 1:
                states = speech_states(self.model, self._wave(0, self.num_samples)[None], self.num_frames)
            else:
                states = self._within_context(start, stop)
            self.made[number] = torch.stack([state[0] for state in states], dim=1)
        return self.made[number]

    def _within_context(self, start: int, stop: int) -> list[Tensor]:
        """States of frames [start, stop), each (1, frames, width), encoded with some frames on either side."""
        context = round(CONTEXT * self.rate)
        first, last = max(0, start - context), min(stop + context, self.num_frames)
        places = np.arange(first, last) * ((self.num_steps - 1) / (self.num_frames - 1))  # in steps of convolutions
        low, high = int(places[0]), min(int(places[-1]) + 2, self.num_steps)
        stretches = [self._convolved(i, min(i + STRETCH, high)) for i in range(low, high, STRETCH)]
        steps = torch.cat(stretches, dim=1)  # (1, high - low, channels)
        places = torch.from_numpy(places - low)
        before = places.floor().long().clamp(max=high - low - 1)
        share = (places - before).to(steps)[:, None]
        after = (before + 1).clamp(max=high - low - 1)
        features = steps[:, before] * (1 - share) + steps[:, after] * share
        return [state[:, start - first : stop - first] for state in encoded(self.model, features)]

    def _convolved(self, start: int, stop: int) -> Tensor:
        """Steps [start, stop) of the convolutions, (1, steps, channels)."""
        hop = hop_of(self.model)
        wave = self._wave(start * hop, (stop - 1) * hop + field_of(self.model))
        return convolved(self.model, wave[None], self.statistics)

    def _wave(self, start: int, stop: int) -> Tensor:
        """Samples [start, stop) as the model takes them: normalised, behind the sound's end zeros."""
        part = (self.samples[start:stop] - np.float32(self.mean)) / np.float32(self.deviation)
        wave = torch.zeros(stop - start)
        wave[: len(part)] = torch.from_numpy(part)
        return wave.to(self.model.device, self.model.dtype)


def moments(samples: np.ndarray, block: int = 2**22) -> tuple[float, float]:
    """Mean and standard deviation by which wav2vec 2.0 takes a sound, without a copy of it in higher precision."""
    parts = [samples[i : i + block] for i in range(0, len(samples), block)]
    mean = sum(float(part.sum(dtype=np.float64)) for part in parts) / len(samples)
    squares = sum(float(np.square(part, dtype=np.float64).sum()) for part in parts) / len(samples)
    return mean, (max(squares - mean**2, 0.0) + VARIANCE_FLOOR) ** 0.5
