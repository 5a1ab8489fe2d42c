"""`refnet animate` and `refnet convert` as they are typed."""

import json
from pathlib import Path

from typer.testing import CliRunner

from films import picture, poses
from referencenet.cli.animate import app
from referencenet.media.films import Film, write_film

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
