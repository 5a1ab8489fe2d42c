"""`--speech builtin`: the small model that the built-in weights hear by, of `talk` and `paperdoll`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from commands import told
from referencenet.builtin.toys import make_speech_model
from referencenet.cli.app import app
from referencenet.cli.talk_clips import heard_by
from referencenet.methods.hallo import HalloPipeline
from referencenet.paperdoll.voice import speech
from referencenet.preprocess.speech import SpeechFeatures
from referencenet.training.data.layouts.index import open_dataset
from tiny import picture


def test_paperdoll_writes_what_the_small_model_hears(tmp_path: Path) -> None:
    typed = ["paperdoll", "--layout", "hdtf", "--speech", "builtin", "-n", "1", "--size", "64", "--workers", "1"]
    result = CliRunner().invoke(app, [*typed, "-o", str(tmp_path / "heads")])
    assert result.exit_code == 0, result.output
    (sample,) = open_dataset(tmp_path / "heads", "hdtf", "train", ("speech", "embedding", "speeds")).samples
    assert sample.speech is not None
    assert sample.audio is not None
    with torch.no_grad():
        expected = SpeechFeatures(make_speech_model(), sample.audio).of(range(50))[:, 1:]
    assert np.allclose(np.load(sample.speech), expected, atol=1e-5)


def test_a_checkpoint_may_hear_by_the_small_model() -> None:
    model = heard_by(HalloPipeline, "builtin", None, "hallo", speech(0, 0.3, 16000))
    state, expected = model.state_dict(), make_speech_model().state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    with pytest.raises(FileNotFoundError, match="not found at nowhere"):
        heard_by(HalloPipeline, "nowhere", None, "hallo", speech(0, 0.3, 16000))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("talk -r hero.png -a voice.wav -o film.mp4 --method aniportrait --checkpoint . --speech builtin",
         "--speech builtin is what hallo and emo may hear by; for aniportrait give the FOLDER"),
        ("talk -r hero.png -a voice.wav -o film.mp4 --method hallo --checkpoint . --speech nowhere",
         "there is no --speech nowhere"),
        ("paperdoll -o heads --layout hdtf --speech nowhere", "there is no --speech nowhere"),
        ("paperdoll -o heads --layout flat --speech builtin", "--speech is of --layout hdtf"),
    ],
)  # fmt: skip
def test_other_ears_are_refused_in_a_line(
    typed: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(0).save("hero.png")
    result = CliRunner().invoke(app, typed.split())
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert message in told(result)
