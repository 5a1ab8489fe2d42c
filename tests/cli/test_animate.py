"""`refnet animate` and `refnet convert` as they are typed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from films import picture, poses
from referencenet.cli.animate import app
from referencenet.media.films import Film, write_film
from referencenet.paperdoll import Character, Pose, Scene, keypoints

RUNNER = CliRunner()


def test_random_tiny_runs_the_whole_path(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "hero.png")
    write_film(poses(3), tmp_path / "poses.mp4", 12)
    out = tmp_path / "film.mp4"
    typed = ["-r", str(tmp_path / "hero.png"), "-p", str(tmp_path / "poses.mp4"), "-o", str(out), "--random-tiny"]
    result = RUNNER.invoke(app, [*typed, "--steps", "1", "--frames", "2", "--side-by-side"])
    assert result.exit_code == 0, result.output
    film = Film(out)
    assert (len(film), film.rate, next(iter(film)).size) == (2, 12, (96, 24))
    settings = json.loads((tmp_path / "film.mp4.json").read_text())
    assert (settings["num_inference_steps"], settings["width"], settings["rate"]) == (1, 32, "12")


def test_without_checkpoint_it_says_which_files_to_get(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["-r", "a.png", "-p", "b.mp4", "-o", str(tmp_path / "c.mp4")])
    assert result.exit_code == 2
    for part in ("motion_module.pth", "patrolli/AnimateAnyone", "licence", "sd-vae-ft-mse", "--random-tiny"):
        assert part in result.output
    assert len(result.output.splitlines()) <= 20
    assert "Traceback" not in result.output


def typed_with_key_points(folder: Path, *further: str) -> list[str]:
    """A film of two drawn poses, for a reference of another build."""
    scenes = [
        Scene(character=replace(Character.from_seed(1), build=build), pose=Pose.named(pose))
        for build, pose in (("slim", "standing"), ("slim", "waving"), ("broad", "standing"))
    ]
    frames = [
        {
            "people": [
                {"pose_keypoints_2d": (keypoints(scene, (48, 64)).astype(float) * (48, 64, 1)).ravel().tolist()}
            ],
            "canvas_width": 48,
            "canvas_height": 64,
        }
        for scene in scenes
    ]
    (folder / "dance.json").write_text(json.dumps(frames[:2]))
    (folder / "hero.json").write_text(json.dumps(frames[2]))
    picture(0).save(folder / "hero.png")
    given = ["-r", str(folder / "hero.png"), "-k", str(folder / "dance.json"), "--random-tiny", "--steps", "1"]
    return [*given, *further]


def test_key_points_are_drawn_and_fitted(tmp_path: Path) -> None:
    poses_shown = []
    for name, further in (("plain", []), ("fitted", ["--fit-to", str(tmp_path / "hero.json")])):
        out = tmp_path / name
        typed = typed_with_key_points(tmp_path, "-o", str(out), "--side-by-side", *further)
        result = RUNNER.invoke(app, typed)
        assert result.exit_code == 0, result.output
        film = Film(out)
        assert (len(film), next(iter(film)).size) == (2, (3 * 48, 64))
        poses_shown.append([np.asarray(frame)[:, 48:96] for frame in film])
    plain, fitted = ([np.flatnonzero(pose.any(axis=(0, 2))) for pose in film] for film in poses_shown)
    assert np.ptp(fitted[0]) > np.ptp(plain[0])  # the reference is broader
    settings = json.loads((tmp_path / "fitted.json").read_text())
    assert settings["fit_to"] == str(tmp_path / "hero.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["-p", "poses.mp4"], "--poses and --keypoints was given; give one of --poses"),
        (["-k", "missing.json"], "there are no key points at missing.json"),
        (["--fit-to", "{folder}/dance.json"], "has 2 frames; expected one, of the reference picture"),
    ],
)
def test_wrong_key_points_are_told(tmp_path: Path, change: list[str], message: str) -> None:
    typed = typed_with_key_points(tmp_path, "-o", str(tmp_path / "out"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        RUNNER.invoke(app, [*typed, *(part.format(folder=tmp_path) for part in change)], catch_exceptions=False)
