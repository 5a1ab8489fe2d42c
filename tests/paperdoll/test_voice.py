"""Voices, and mouths that follow them."""

import numpy as np
import pytest

from referencenet.paperdoll.voice import SAMPLE_RATE, mouth_track, speech


def test_speech_is_the_seeds_own():
    assert np.array_equal(speech(3, 1.0), speech(3, 1.0))
    assert not np.array_equal(speech(3, 1.0), speech(4, 1.0))
    assert speech(3, 1.5).shape == (SAMPLE_RATE * 3 // 2,)
    assert 0.1 < np.abs(speech(3, 2.0)).max() <= 1


def test_mouth_follows_the_envelope():
    rate, fps, frames = 16000, 25, 50
    envelope = np.linspace(0, 1, frames)
    sound = np.repeat(envelope, rate // fps) * np.sin(np.arange(frames * rate // fps) * 0.2)
    track = mouth_track(sound, rate, fps, frames)
    assert track.shape == (frames, 2)
    assert np.corrcoef(track[:, 0], envelope)[0, 1] > 0.999
    assert track[0, 0] == 0
    assert track[:, 0].max() == 1


def test_bright_sounds_make_wide_mouths():
    time = np.arange(16000) / 16000
    sound = np.concatenate((np.sin(2 * np.pi * 200 * time), np.sin(2 * np.pi * 2000 * time)))
    width = mouth_track(sound, 16000, 25, 50)[:, 1]
    assert width[30:].mean() > width[:20].mean() + 0.1


def test_silence_keeps_the_mouth_shut():
    assert mouth_track(np.zeros(16000), 16000, 25, 25)[:, 0].max() == 0


def test_impossible_sound_is_refused():
    with pytest.raises(ValueError, match="seconds is 0"):
        speech(1, 0)
    with pytest.raises(ValueError, match=r"audio has shape \(2, 5\); expected \(samples,\)"):
        mouth_track(np.zeros((2, 5)), 16000, 25, 5)
