"""`refnet talk` as it is typed: from a portrait and a sound to a film with that sound."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from films import picture, write_released
from referencenet.checkpoints.audio2lmk import AUDIO2LMK
from referencenet.cli.app import app as front
from referencenet.cli.talk import app
from referencenet.media.films import Film, frame_rate
from referencenet.media.sound import SAMPLE_RATE, read_sound
from referencenet.methods.aniportrait import PUBLISHED
from referencenet.methods.tiny import tiny_talking_face
from referencenet.paperdoll.voice import speech
from referencenet.preprocess.face_geometry import pose_matrices
from sounds import write_sound
from tiny import tiny_pipeline

RUNNER = CliRunner()


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """A portrait, its face and 0.3 s of sound, as typed."""
    picture(0).save(tmp_path / "portrait.png")
    write_track(tmp_path / "face.npz", 1)
    write_sound(tmp_path / "speech.wav", speech(0, 0.3, 44100), 44100)
    return [
        "-r", str(tmp_path / "portrait.png"), "--face", str(tmp_path / "face.npz"), "-a", str(tmp_path / "speech.wav"),
        "--size", "32", "--steps", "1",
    ]  # fmt: skip


def write_track(path: Path, num_frames: int) -> Path:
    vertices = np.random.default_rng(0).normal(size=(num_frames, 468, 3)) * 4
    poses = np.array([5.0, 0, 0, 0, 0, -30]) + np.arange(num_frames)[:, None] * [0, 3, 0, 0, 0, 0]
    np.savez(path, vertices=vertices, matrices=pose_matrices(poses), width=512, height=512, rate=30)
    return path


def run(*typed: str) -> Result:
    result = RUNNER.invoke(app, [*typed, "--overwrite"])
    assert result.exit_code == 0, result.output
    return result


def told(*typed: str) -> str:
    result = RUNNER.invoke(front, ["talk", *typed])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_a_portrait_speaks_with_its_sound(given: list[str], tmp_path: Path) -> None:
    out = tmp_path / "film.mp4"
    run(*given, "-o", str(out), "--random-tiny", "--side-by-side")
    film = Film(out)
    assert (len(film), film.rate, next(iter(film)).size) == (9, 30, (96, 32))
    found, expected = read_sound(out), read_sound(speech(0, 0.3, 44100), 44100)
    assert len(found) / SAMPLE_RATE == pytest.approx(0.3, abs=0.03)
    assert np.corrcoef(found[: len(expected)], expected[: len(found)])[0, 1] > 0.95
    settings = json.loads((tmp_path / "film.mp4.json").read_text())
    assert (settings["rate"], settings["num_frames"], settings["identity"]) == ("30", 9, 81)
    assert settings["audio"] == str(tmp_path / "speech.wav")


def test_the_head_moves_as_in_a_film_or_by_an_identity(given: list[str], tmp_path: Path) -> None:
    write_track(tmp_path / "driver.npz", 20)
    np.save(tmp_path / "template.npy", np.zeros((4, 6)))
    shown = []
    for further in (
        ["--identity", "3"], ["--identity", "4"], ["--head-poses", str(tmp_path / "driver.npz")],
        ["--head-poses", str(tmp_path / "template.npy")],
    ):  # fmt: skip
        result = run(
            *given, "-o", str(tmp_path / "frames"), "--random-tiny", "--side-by-side", "--frames", "2", *further
        )
        assert "frames cannot hold sound" in result.output
        shown.append(np.asarray(list(Film(tmp_path / "frames"))[1])[:, 32:64])
    assert all(not np.array_equal(a, b) for i, a in enumerate(shown) for b in shown[:i])


@pytest.mark.parametrize(("typed", "frames"), [("24", 8), ("25", 8), ("29.97", 9), ("30", 9)])
def test_rates(typed: str, frames: int, given: list[str], tmp_path: Path) -> None:
    run(*given, "-o", str(tmp_path / "film.mp4"), "--random-tiny", "--fps", typed)
    film = Film(tmp_path / "film.mp4")
    assert (len(film), film.rate) == (frames, frame_rate(float(typed)))


def test_rates_are_exact_as_television_has_them() -> None:
    assert [str(frame_rate(rate)) for rate in (23.976, 24, 29.97, 30, 59.94, 12.5, 2)] == [
        "24000/1001", "24", "30000/1001", "30", "60000/1001", "25/2", "2"
    ]  # fmt: skip


def test_released_files_speak(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = write_released(tiny_pipeline("aniportrait"), PUBLISHED, tmp_path / "released")
    face = tiny_talking_face()
    for name in AUDIO2LMK.components:
        torch.save(getattr(face, name).state_dict(), released / f"{name}.pt")
    monkeypatch.setitem(AUDIO2LMK.__dict__, "base_config", AUDIO2LMK.tiny_config)
    typed = [*given, "--seed", "7", "--frames", "2"]
    run(*typed, "-o", str(tmp_path / "a"), "--checkpoint", str(released), "--base", str(released / "base"))
    run(*typed, "-o", str(tmp_path / "b"), "--random-tiny")
    tiny_pipeline("aniportrait").save_pretrained(tmp_path / "converted")
    run(*typed, "-o", str(tmp_path / "c"), "--checkpoint", str(tmp_path / "converted"), "--speech", str(released))
    films = [np.stack([np.asarray(frame, dtype=int) for frame in Film(tmp_path / name)]) for name in "abc"]
    assert np.allclose(films[0], films[1], atol=1)
    assert np.allclose(films[0], films[2], atol=1)
    assert "needs audio2mesh.pt, audio2pose.pt, not found" in told(
        *typed, "-o", str(tmp_path / "d"), "--checkpoint", str(tmp_path / "converted")
    )


@pytest.mark.usefixtures("nothing_shipped")
def test_without_checkpoint_it_says_which_files_to_get(given: list[str], tmp_path: Path) -> None:
    result = RUNNER.invoke(app, [*given, "-o", str(tmp_path / "film.mp4")])
    assert result.exit_code == 2
    for part in ("audio2mesh.pt", "audio2pose.pt", "pose_guider.pth", "ZJYang/AniPortrait", "licence", "--random-tiny"):
        assert part in result.output
    assert len(result.output.splitlines()) <= 20


def test_what_does_not_fit_is_told_before_anything_is_drawn(given: list[str], tmp_path: Path) -> None:
    tiny = [*given, "-o", str(tmp_path / "film.mp4"), "--random-tiny"]
    without = [word for word in tiny if word not in ("--face", str(tmp_path / "face.npz"))]
    assert "aniportrait needs --face NPZ|JSON, the portrait's own face" in told(*without)
    write_track(tmp_path / "two.npz", 2)
    assert "has the faces of 2 frames" in told(*tiny, "--face", str(tmp_path / "two.npz"))
    both = ["--identity", "1", "--head-poses", str(tmp_path / "two.npz")]
    assert "--head-poses and --identity were given" in told(*tiny, *both)
    assert "identity is 100, of 9 frames; expected 0 to 99" in told(*tiny, "--identity", "100")
    assert "there is no --audio" in told(*tiny, "-a", str(tmp_path / "none.wav"))
    assert "portrait.png is not a sound that can be read" in told(*tiny, "-a", str(tmp_path / "portrait.png"))
    assert "expected at least 400" in told(
        *tiny, "-a", str(write_sound(tmp_path / "s.wav", np.zeros(99, dtype=np.float32), 16000))
    )
    assert "leave out either it or --speech" in told(*tiny, "--speech", str(tmp_path))
    assert "10 frames were asked for, but the pose film has 9" in told(*tiny, "--frames", "10")
    assert not (tmp_path / "film.mp4").exists()
