"""`refnet turn` as it is typed: drawn cameras, given ones, and what is refused before a model is loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from commands import told
from referencenet.cli.app import app
from referencenet.media.films import Film
from tiny import picture, tiny_pipeline

SIZE = (32, 32)
TINY = ("--random-tiny", "--size", "32", "--steps", "1", "--device", "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A portrait, two cameras, three proxies, and cameras that do not belong together."""
    picture(0).save(tmp_path / "portrait.png")
    for name, sizes in (("cameras", [SIZE] * 2), ("proxies", [SIZE] * 3), ("mixed", [SIZE, (32, 24)])):
        (tmp_path / name).mkdir()
        for i, size in enumerate(sizes):
            picture(10 + i, size).save(tmp_path / name / f"{i}.png")
    (tmp_path / "empty").mkdir()
    return tmp_path


def run(folder: Path, *typed: str, out: str = "out") -> Result:
    given = [word.format(folder) for word in typed]
    return CliRunner().invoke(
        app, ["turn", "-r", str(folder / "portrait.png"), "-o", str(folder / out), "--overwrite", *given]
    )


def frames(path: Path) -> list[np.ndarray]:
    return [np.asarray(frame) for frame in Film(path)]


def test_a_head_is_drawn_for_every_camera_and_a_film_written(folder: Path) -> None:
    result = run(folder, "--views", "9", "--yaw", "-30:30", "--pitch", "10", "--side-by-side", *TINY, out="turned.mp4")
    assert result.exit_code == 0, result.output
    film = Film(folder / "turned.mp4")
    assert (len(film), film.rate, next(iter(film)).size) == (9, 10, (96, 32))
    settings = json.loads((folder / "turned.mp4.json").read_text())
    expected = {"yaw": "-30:30", "pitch": "10", "views": 9, "seed": 42, "num_inference_steps": 1, "width": 32}
    assert settings.items() >= expected.items()
    assert "9 views in" in result.stdout


def test_cameras_and_proxies_come_from_folders_and_every_option_acts(folder: Path) -> None:
    cameras = ("--cameras", "{0}/cameras")
    tries = [
        (), cameras, (*cameras, "--proxies", "{0}/proxies"), ("--start", "noise"), ("--start", "head"),
        ("--yaw", "0"), ("--pitch", "0:30"), ("--roll", "20"), ("--fov", "60"), ("--guidance", "1"), ("--seed", "1"),
        ("--middle-everywhere",), ("--balance", "-p", "a b", "--negative-prompt", "c"), ("-p", "a b"),
    ]  # fmt: skip
    drawn = []
    for i, typed in enumerate(tries):
        result = run(folder, "--views", "2", *typed, *TINY, out=str(i))
        assert result.exit_code == 0, result.output
        drawn.append(np.stack(frames(folder / str(i))).tobytes())
        assert len(frames(folder / str(i))) == 2
    assert len(set(drawn)) == len(tries)
    assert run(folder, *cameras, *TINY, out="all").exit_code == 0
    assert len(frames(folder / "all")) == 2  # all cameras


@pytest.mark.parametrize("views", [1, 33])
def test_any_number_of_views_is_drawn(folder: Path, views: int) -> None:
    assert run(folder, "--views", str(views), *TINY).exit_code == 0
    assert len(frames(folder / "out")) == views


def test_a_converted_folder_is_read(folder: Path) -> None:
    tiny_pipeline("diffportrait3d").save_pretrained(folder / "converted")
    typed = ("--checkpoint", "{0}/converted", "--views", "1", *TINY[1:])
    result = run(folder, *typed)
    assert result.exit_code == 0
    assert "the released weights were trained with rendered people" in told(result)
    assert "rendered people" not in told(run(folder, *typed, "--cameras", "{0}/cameras"))
    assert "leave --base out" in told(run(folder, *typed, "--base", "sd15"))


@pytest.mark.usefixtures("nothing_shipped")
def test_without_weights_one_screen_says_which_files_to_get(folder: Path) -> None:
    result = run(folder, "--views", "4")
    assert result.exit_code == 2
    words = ("model_state-540000-001.th", "FreedomGu/DiffPortrait3D", "licence", "--base", "--random-tiny")
    assert all(word in result.output for word in words)
    assert len(result.output.splitlines()) <= 20
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--yaw", "40:-40"), "--yaw was 40:-40, from the larger angle to the smaller; write -40:40"),
        (("--pitch", "up"), "--pitch was 'up'; it is one angle or FROM:TO in degrees"),
        (("--yaw", "1:2:3"), "--yaw was '1:2:3'"),
        (("--yaw", "-200:200"), "yaw is -200.0; expected degrees from -180 to 180"),
        (("--yaw", "nan"), "yaw is nan"),
        (("--fov", "170"), "field_of_view is 170.0; expected degrees from 1 to 100"),
        (("--cameras", "{0}/nowhere"), "there is no --cameras"),
        (("--cameras", "{0}/empty"), "has no frame"),
        (("--cameras", "{0}/cameras", "--views", "3"), "cameras has 2 pictures for 3 views"),
        (("--cameras", "{0}/mixed"), "picture 2 of --cameras"),
        (("--cameras", "{0}/cameras", "--yaw", "10"), "for drawn cameras only: --yaw"),
        (("--cameras", "{0}/cameras", "--fov", "10", "--roll", "1"), "for drawn cameras only: --roll, --fov"),
        (("--cameras", "{0}/cameras", "--start", "head"), "for drawn cameras only: --start head"),
        (("--proxies", "{0}/proxies", "--views", "4"), "proxies has 3 pictures for 4 views"),
        (("--proxies", "{0}/nowhere"), "there is no --proxies"),
        (("--proxies", "{0}/mixed", "--views", "2"), "picture 2 of --proxies"),
        (("--proxies", "{0}/proxies", "--start", "noise"), "--start is for views without --proxies"),
        (("--balance",), "--balance guides by --prompt against --negative-prompt"),
        (("--negative-prompt", "a"), "--negative-prompt counts with --balance only"),
        (("--checkpoint", "{0}/nowhere"), "there is no --checkpoint"),
    ],
)
def test_what_cannot_be_turned_is_refused_by_name(folder: Path, typed: tuple[str, ...], message: str) -> None:
    weights = TINY[1:] if "--checkpoint" in typed else TINY
    result = run(folder, *typed, *weights)
    assert result.exit_code == 2, result.output
    assert message in told(result)
    assert not (folder / "out").exists()


def test_a_portrait_that_is_none_and_a_film_of_another_ending_are_refused(folder: Path) -> None:
    assert "ends with '.png'" in told(run(folder, *TINY, out="out.png"))
    (folder / "portrait.png").write_text("no picture")
    result = run(folder, *TINY)
    assert result.exit_code == 2
    assert "portrait.png" in told(result)


def test_the_settings_hold_the_size_of_a_view(folder: Path) -> None:
    assert run(folder, "--views", "1", *TINY, "--size", "48x32").exit_code == 0
    with Image.open(folder / "out" / "000000.png") as view:
        assert view.size == (48, 32)
