"""Drawn heads with what is heard and whose face it is, by the command."""

import numpy as np
import pytest
from typer.testing import CliRunner

from referencenet.builtin.heads import embedding
from referencenet.cli.app import app
from referencenet.paperdoll.film import talk
from referencenet.paperdoll.portrait_layouts import NUM_FRAMES
from referencenet.pipelines.heard import read_features
from referencenet.preprocess.speech import SpeechFeatures
from sounds import tiny_wav2vec


def typed(*words):
    return CliRunner().invoke(app, ["paperdoll", "--size", "64", "--workers", "1", "-n", "1", *map(str, words)])


def test_heads_are_written_with_features_of_a_given_model(tmp_path):
    model = tiny_wav2vec()
    model.save_pretrained(tmp_path / "wav2vec")
    out = tmp_path / "hdtf"
    assert typed("--layout", "hdtf", "--speech", tmp_path / "wav2vec", "--out", out).exit_code == 0
    speech = np.load(out / "speech" / "0000.npy")
    layers, channels = model.config.num_hidden_layers, model.config.hidden_size
    heard = read_features(SpeechFeatures(model.eval(), out / "audios" / "0000.wav"), layers, channels)
    assert heard.num_frames == len(speech) == NUM_FRAMES
    assert np.allclose(speech, heard.of(range(NUM_FRAMES)).numpy(), atol=1e-5)
    face = np.load(out / "face_emb" / "0000.npy")
    assert np.linalg.norm(face) == pytest.approx(1, abs=1e-3)


def test_faces_of_one_person_are_nearer_than_those_of_another():
    embed = embedding()
    mine, again, other = (
        embed(next(talk(who, film, num_frames=1).frames(64))) for who, film in ((1, 1), (1, 2), (2, 1))
    )
    assert mine @ again > mine @ other


def test_sound_is_heard_of_heads_alone(tmp_path):
    result = typed("--layout", "flat", "--speech", tmp_path, "--out", tmp_path / "flat")
    assert result.exit_code == 2
    assert "--speech is of --layout hdtf, but the layout is flat" in " ".join(result.stderr.split())
    assert typed("--layout", "hdtf", "--speech", tmp_path, "--out", tmp_path / "hdtf").exit_code == 2
    assert not (tmp_path / "hdtf").exists()
