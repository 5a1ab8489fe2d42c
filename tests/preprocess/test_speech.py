"""Features of speech: as published up to a minute, a measured approximation beyond it, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from referencenet.checkpoints.keymap import CheckpointError
from referencenet.networks.wav2vec import field_of, hop_of
from referencenet.paperdoll.voice import speech
from referencenet.preprocess import speech as module
from referencenet.preprocess.speech import SpeechFeatures, read_speech_model
from sounds import tiny_wav2vec, write_sound
from tolerances import relative_error

NORMS = ["group", "layer"]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_wav2vec()


def whole(features: SpeechFeatures) -> torch.Tensor:
    return torch.cat(list(features))


@torch.no_grad()
def published(model: Any, samples: np.ndarray, rate: Fraction) -> list[torch.Tensor]:
    """Last states as the specification writes them down, with the stock model's parts."""
    wave = torch.from_numpy(samples).double()
    wave = ((wave - wave.mean()) / (wave.var(correction=0) + 1e-7).sqrt()).float()
    frames = ceil(Fraction(len(samples), 16000) * rate)
    features = functional.interpolate(model.feature_extractor(wave[None]), frames, mode="linear", align_corners=True)
    hidden = model.feature_projection(features.transpose(1, 2))[0]
    return list(model.encoder(hidden).last_hidden_state[0])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("rate", [Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30)], ids=float)
def test_a_short_sound_goes_through_the_whole_model(rate: Fraction, norm: str) -> None:
    model, samples = tiny_wav2vec(norm), speech(1, 2.31)
    features = SpeechFeatures(model, samples, rate=rate)
    expected = published(model, samples, rate)
    assert len(features) == len(expected)
    assert features.pieces == [(0, len(expected))]
    assert features.of([0]).shape == (1, 4, 32)
    assert relative_error(whole(features)[:, -1], torch.stack(expected)) < 1e-5


def test_frames_follow_the_rate_and_fill_the_last_clip(model: Any) -> None:
    samples = speech(1, 1.0)
    assert len(SpeechFeatures(model, samples)) == 25  # of most systems
    assert len(SpeechFeatures(model, samples[:-639], rate=25)) == 25
    assert len(SpeechFeatures(model, samples[:-640], rate=25)) == 24
    assert len(SpeechFeatures(model, samples, rate=Fraction(30000, 1001))) == 30
    filled = SpeechFeatures(model, samples, multiple=16)
    assert (filled.num_sounding, filled.num_frames, filled.num_samples) == (25, 32, 16000 + 7 * 640)
    assert torch.equal(filled.of([40]), filled.of([31]))
    assert SpeechFeatures(model, samples[:8000], multiple=13).num_frames == 13  # nothing to add


def test_neighbours_are_clamped_at_both_ends(model: Any) -> None:
    features = SpeechFeatures(model, speech(1, 0.4))
    around = features.around([0, 5, 9])
    assert around.shape == (3, 5, 4, 32)
    for row, frames in zip(around, ([0, 0, 0, 1, 2], [3, 4, 5, 6, 7], [7, 8, 9, 9, 9]), strict=True):
        assert torch.equal(row, features.of(frames))
    assert features.around([3], radius=0).shape == (1, 1, 4, 32)


@pytest.mark.parametrize("norm", NORMS)
def test_a_long_sound_is_exact_up_to_the_encoder_and_near_behind_it(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = tiny_wav2vec(norm), speech(0, 180.0)
    pieces = SpeechFeatures(model, samples)
    assert [stop - start for start, stop in pieces.pieces] == [750] * 6
    found = whole(pieces)
    monkeypatch.setattr(module, "WHOLE", 1000)
    expected = whole(SpeechFeatures(model, samples))
    errors = [relative_error(found[:, i], expected[:, i]) for i in range(4)]
    print(norm, errors)  # noqa: T201 - the measurement
    assert errors[0] < 1e-5
    assert max(errors) < 0.06  # measured 0.044 and 0.022, of random weights, which attend far and wide


def test_pieces_are_made_once_and_forgotten(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHOLE", 2)
    monkeypatch.setattr(module, "PIECE", 1)
    features = SpeechFeatures(model, speech(2, 6.2))
    calls: list[int] = []
    handle = model.encoder.register_forward_hook(lambda *_: calls.append(1))
    for start in range(0, len(features), 12):  # as windows of a film ask
        features.around(range(start, min(start + 16, len(features))))
    handle.remove()
    assert len(calls) == len(features.pieces) == 7
    assert len(features.made) <= 2


def test_no_hook_stays_on_the_model(model: Any) -> None:
    SpeechFeatures(model, speech(2, 0.5)).of([0])
    assert not any(layer._forward_pre_hooks for layer in model.encoder.layers)


def test_faults_are_told(model: Any, tmp_path: Path) -> None:
    assert (field_of(model), hop_of(model)) == (400, 320)
    assert len(SpeechFeatures(model, np.zeros(400, dtype=np.float32)).of([0])) == 1  # silence, one step
    with pytest.raises(ValueError, match=r"has 399 samples \(0.025 s\); expected at least 400"):
        SpeechFeatures(model, np.zeros(399, dtype=np.float32))
    with pytest.raises(ValueError, match="expected more than 0"):
        SpeechFeatures(model, np.zeros(400, dtype=np.float32), rate=0)
    with pytest.raises(FileNotFoundError, match="there is no sound"):
        SpeechFeatures(model, tmp_path / "none.wav")
    with pytest.raises(FileNotFoundError, match="holds no Wav2Vec2Model"):
        read_speech_model(tmp_path)


@pytest.mark.parametrize("weight_norm", ["today's names", "torch's before 2.1"])
def test_a_folder_is_read_strictly(model: Any, weight_norm: str, tmp_path: Path) -> None:
    names = {} if weight_norm == "today's names" else {"original0": "weight_g", "original1": "weight_v"}

    def renamed(key: str) -> str:
        head, _, end = key.rpartition(".parametrizations.weight.")
        return f"{head}.{names[end]}" if head and names else key

    model.save_pretrained(tmp_path)
    state = {renamed(key): value for key, value in model.state_dict().items() if key != "masked_spec_embed"}
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    sound = speech(1, 1.0)
    found = whole(SpeechFeatures(read_speech_model(tmp_path), sound))
    assert relative_error(found, whole(SpeechFeatures(model, sound))) < 1e-6
    del state["feature_projection.projection.bias"]
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"1 tensors missing \(feature_projection.projection.bias\)"):
        read_speech_model(tmp_path)


AN_HOUR = """
import sys
sys.path.insert(0, {tests!r})
from sounds import tiny_wav2vec
from referencenet.preprocess.speech import SpeechFeatures
features = SpeechFeatures(tiny_wav2vec(), {path!r})
num_frames = sum(len(piece) for piece in features)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(num_frames, status["VmHWM"].split()[0])  # what getrusage says is also the parent's
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux' /proc")
def test_an_hour_stays_below_a_gigabyte(tmp_path: Path) -> None:
    minute = speech(3, 60.0)
    path = write_sound(tmp_path / "hour.flac", np.tile(minute, 60), 16000)
    code = AN_HOUR.format(tests=str(Path(__file__).parents[1]), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    num_frames, kilobytes = map(int, done.stdout.split()[-2:])
    print(f"peak {kilobytes / 1e6:.2f} GB")  # noqa: T201 - the measurement
    assert num_frames == 90000
    assert kilobytes * 1024 < 1e9
