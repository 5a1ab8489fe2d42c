"""A voice out of numbers, and how far a voice opens a mouth.

The voice is a train of syllables: a pulse at the pitch of the speaker, given colour by two formants, with pauses. It
says nothing, but it has what lips follow: loudness and vowel. `mouth_track` reads those from any recording.
"""

from __future__ import annotations

import math

import numpy as np

from referencenet.paperdoll.streams import Stream

SAMPLE_RATE = 16000
# First and second formant in hertz of five vowels (Peterson and Barney 1952, men's means, rounded to tens)
_VOWELS = {"a": (730, 1090), "e": (530, 1840), "i": (270, 2290), "o": (570, 840), "u": (300, 870)}
_BANDWIDTH = 110.0


def speech(seed: int, seconds: float, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Let the speaker of a seed babble.

    Args:
        seed: Which speech.
        seconds: How long.
        sample_rate: Samples a second.

    Returns:
        (samples,) float32 in [-1, 1].
    """
    if not 0 < seconds <= 3600:
        raise ValueError(f"seconds is {seconds}; expected more than 0 and at most 3600")
    stream = Stream("speech", seed)
    pitch = stream.uniform(100, 220)
    track = np.zeros(math.ceil(seconds * sample_rate))
    at = stream.uniform(0.0, 0.15)
    while at < seconds:
        length = stream.uniform(0.12, 0.28)
        vowel, loud = stream.choice(tuple(_VOWELS)), stream.uniform(0.45, 1.0)
        first = round(at * sample_rate)
        last = min(len(track), first + round(length * sample_rate))
        if last > first:
            track[first:last] += loud * _syllable(vowel, pitch * stream.uniform(0.92, 1.1), last - first, sample_rate)
        at += length + (stream.uniform(0.25, 0.5) if stream.chance(0.16) else stream.uniform(0.01, 0.06))
    return np.clip(0.8 * track, -1, 1).astype(np.float32)


def _syllable(vowel: str, pitch: float, num_samples: int, sample_rate: int) -> np.ndarray:
    time = np.arange(num_samples) / sample_rate
    phase = 2 * np.pi * pitch * time * (1 - 0.06 * time / max(time[-1], 1e-6))
    harmonics = np.arange(1, int(min(4000, sample_rate / 2) / pitch))
    strength = sum(1 / (1 + ((harmonics * pitch - formant) / _BANDWIDTH) ** 2) for formant in _VOWELS[vowel])
    strength = (strength + 0.02) / harmonics**0.5
    wave = (strength[:, None] * np.sin(harmonics[:, None] * phase)).sum(axis=0)
    swell = np.sin(np.pi * (np.arange(num_samples) + 0.5) / num_samples) ** 0.7
    return wave / strength.sum() * 1.8 * swell


def mouth_track(audio: np.ndarray, sample_rate: int, fps: float, num_frames: int) -> np.ndarray:
    """Read from a recording how a mouth moves with it.

    Args:
        audio: (samples,) floats in [-1, 1].
        sample_rate: Samples a second.
        fps: Frames a second.
        num_frames: How many frames are wanted.

    Returns:
        (num_frames, 2) float32: how far the mouth opens, 0..1, by the loudness of the frame's samples against the
        loudest; and how wide it is, 0.8..1.15, by how bright the sound is.
    """
    audio = np.asarray(audio, dtype=np.float64)
    if audio.ndim != 1 or not len(audio):
        raise ValueError(f"audio has shape {audio.shape}; expected (samples,) with at least one sample")
    edges = np.rint(np.arange(num_frames + 1) * sample_rate / fps).astype(int).clip(0, len(audio))
    loud, bright = np.zeros(num_frames), np.zeros(num_frames)
    for frame, (first, last) in enumerate(zip(edges, edges[1:], strict=False)):
        part = audio[first:last]
        if len(part) > 1:
            loud[frame] = math.sqrt(float(np.mean(part**2)))
            bright[frame] = float(np.sqrt(np.mean(np.diff(part) ** 2))) / max(loud[frame], 1e-4)
    opening = np.clip(loud / max(float(np.max(loud)), 1e-6), 0, 1)
    brightest = max(float(np.max(bright)), 1e-6)
    return np.stack((opening, 0.8 + 0.35 * bright / brightest), axis=1).astype(np.float32)
