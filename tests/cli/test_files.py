"""What the commands read and where they write, as it is typed: told early, in one line, and nothing half done."""

import json
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from films import picture, poses
from referencenet.cli.app import app
from referencenet.media.films import Film, FilmWriter, write_film
from referencenet.methods.animate_anyone import AnimateAnyonePipeline
from sounds import tone, write_sound
from tiny import tiny_pipeline

TINY = ("--random-tiny", "--steps", "1", "--device", "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reference of other proportions than the poses, and the poses."""
    picture(0).resize((24, 64)).save(tmp_path / "hero.png")
    write_film(poses(3), tmp_path / "poses.mp4", 12)
    return tmp_path


def animate(folder: Path, *typed: str, out: str = "film.mp4") -> Result:
    given = ["-r", str(folder / "hero.png"), "-p", str(folder / "poses.mp4"), "-o", str(folder / out)]
    return CliRunner().invoke(app, ["animate", *given, *typed])


def told(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code in (1, 2), result.output
    assert "Traceback" not in result.output
    assert sum("error:" in line for line in result.output.splitlines()) == 1
    return " ".join(result.output.split())


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads weights fails."""

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    for module in ("film_run", "run"):
        monkeypatch.setattr(f"referencenet.cli.{module}.load", loaded)


def test_fit_is_chosen_and_said(folder: Path) -> None:
    shown: dict[str, np.ndarray] = {}
    done_by = {"crop": "its middle is kept", "pad": "it gets a border"}
    for fit in ("", "crop", "pad", "stretch"):
        out = f"out-{fit}"
        result = animate(folder, *TINY, "--size", "32x32", "--frames", "1", *(("--fit", fit) if fit else ()), out=out)
        assert result.exit_code == 0, result.output
        said, done = " ".join(result.output.split()), done_by.get(fit, "it is stretched")
        assert f"note: the reference is 24 x 64 pixels, the result 32 x 32: {done}" in said
        assert f"note: a pose is 32 x 24 pixels, the result 32 x 32: {done}" in said
        assert ("--fit crop, pad or stretch chooses" in said) == (not fit)
        shown[fit] = np.stack([np.asarray(frame) for frame in Film(folder / out)])
    assert np.array_equal(shown[""], shown["stretch"])
    assert len({frames.tobytes() for frames in shown.values()}) == 3
    assert json.loads((folder / "out-pad.json").read_text())["fit"] == "pad"


def test_a_path_with_brackets_is_printed_whole(folder: Path) -> None:
    result = animate(folder, *TINY, out="[red]film[1].mp4")
    assert f"3 frames in {folder / '[red]film[1].mp4'}" in result.stdout


@pytest.mark.usefixtures("no_weights")
def test_a_second_process_is_refused_before_it_begins(folder: Path) -> None:
    with FilmWriter(folder / "film.mp4", Fraction(25)) as writer:
        writer.add([Image.new("RGB", (8, 8))])
        assert "another process is writing" in told(animate(folder, *TINY))


def test_a_failed_run_leaves_the_settings_of_the_film_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert animate(folder, *TINY, "--seed", "1").exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(FilmWriter, "finish", lambda *_: 1 / 0)
        animate(folder, *TINY, "--seed", "2")
    assert json.loads((folder / "film.mp4.json").read_text())["seed"] == 1


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("command", "out", "message"),
    [
        ("animate", "film.avi", "ends with '.avi'; use .mp4"),
        ("animate", "hero.png/film.mp4", "hero.png is a file, not a folder"),
        ("animate", "mine.mp4", "mine.mp4.json was not written by refnet"),
        ("animate", "folder", "folder holds 1 pictures already, such as a.png, .* remove them with --overwrite"),
        ("face", "out.psd", "ends with '.psd', which names no picture format"),
        ("face", "mine.mp4", "ends with '.mp4', which names no picture format"),
        ("tryon", "folder", "is a folder; give the name of a picture in it"),
        ("turn", "film.mkv", "ends with '.mkv'; use .mp4"),
        ("compose", "hero.png/out.png", "hero.png is a file, not a folder"),
    ],
)
def test_outputs_are_looked_at_first(command: str, out: str, message: str, folder: Path) -> None:
    (folder / "folder").mkdir()
    picture(1).save(folder / "folder" / "a.png")
    (folder / "mine.mp4.json").write_text('{"mine": 1}')
    hero, target = str(folder / "hero.png"), str(folder / out)
    given = {
        "animate": ["-r", hero, "-p", str(folder / "poses.mp4")],
        "face": ["a person", "-f", hero],
        "tryon": ["-p", hero, "-g", hero, "--densepose", hero, "--mask", hero],
        "turn": ["-r", hero],
        "compose": ["--part", f"face={hero}", "--pose", hero],
    }[command]
    result = CliRunner().invoke(app, [command, *given, "-o", target, "--random-tiny"])
    assert result.exit_code == 2
    assert re.search(message, told(result))


def test_sound_that_does_not_come_over_is_told(folder: Path) -> None:
    sound = write_sound(folder / "s.wav", tone(1.0, 16000), 16000)
    write_film(poses(2), folder / "poses.mp4", 12, sound=sound)
    result = animate(folder, *TINY)
    assert result.exit_code == 0
    assert "note: the sound of" in result.output
    with av.open(str(folder / "film.mp4")) as container:
        assert not container.streams.audio


def test_words_that_were_meant_are_named() -> None:
    for typed, message in (
        (["animate", "--method", "animate_anyon"], "Did you mean 'animate_anyone'?"),
        (["convert", "flashfaces", "a", "-o", "b"], "Did you mean 'flashface'?"),
        (["methods", "magic_animat"], "Did you mean 'magic_animate'?"),
    ):
        assert message in told(CliRunner().invoke(app, typed))


def test_a_converted_folder_with_broken_weights_writes_nothing(folder: Path) -> None:
    pipe = tiny_pipeline("animate_anyone")
    with torch.no_grad():
        next(iter(pipe.vae.parameters())).view(-1)[0] = float("nan")
    pipe.save_pretrained(folder / "converted")
    result = animate(folder, "--checkpoint", str(folder / "converted"), "--steps", "1", "--device", "cpu")
    assert "NaN or infinite weights" in told(result)
    assert not (folder / "film.mp4").exists()


def test_a_result_that_is_no_number_is_not_encoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(latents: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        return (torch.full((len(latents), 3, latents.shape[2] * 8, latents.shape[3] * 8), float("nan")),)

    pipe = tiny_pipeline("animate_anyone")
    monkeypatch.setattr(pipe.vae, "decode", broken)
    monkeypatch.setattr("referencenet.cli.film_run.load", lambda *_, **__: pipe)
    assert isinstance(pipe, AnimateAnyonePipeline)
    message = told(animate(folder, *TINY))
    assert "the autoencoder made values that are not finite of good latents, so nothing is written" in message
    assert not (folder / "film.mp4").exists()


def test_each_picture_is_drawn_alone_from_a_seed_of_its_own(folder: Path) -> None:
    typed = ["face", "a person", "-f", str(folder / "hero.png"), *TINY, "--size", "32x32"]
    for out, seed, count in (("a.png", "5", "2"), ("b.png", "6", "1")):
        result = CliRunner().invoke(app, [*typed, "-o", str(folder / out), "--seed", seed, "-n", count])
        assert result.exit_code == 0, result.output
    assert np.array_equal(np.asarray(Image.open(folder / "a-2.png")), np.asarray(Image.open(folder / "b.png")))
    assert result.stdout.strip() == str(folder / "b.png")


@pytest.fixture
def dressing(folder: Path) -> list[str]:
    """What `tryon` is given, but for the mask."""
    for name in ("person", "garment", "densepose"):
        picture(1).resize((64, 96)).save(folder / f"{name}.png")
    Image.fromarray(np.full((96, 64), 4, np.uint8)).save(folder / "parsing.png")
    given = [f"--{name}={folder / name}.png" for name in ("person", "garment", "densepose")]
    return ["tryon", *given, "-o", str(folder / "out.png"), "--size", "64x96", *TINY]


def test_body_points_may_be_openposes_and_of_one_of_several(dressing: list[str], folder: Path) -> None:
    people = [{"pose_keypoints_2d": [float(x), 40.0, 1.0] * 18} for x in (50, 10)]
    (folder / "people.json").write_text(json.dumps({"people": people}))
    made = [f"--parsing={folder / 'parsing.png'}", f"--keypoints={folder / 'people.json'}"]
    assert "2 people are seen in " in told(CliRunner().invoke(app, [*dressing, *made]))
    result = CliRunner().invoke(app, [*dressing, *made, "--person-number", "2"])
    assert result.exit_code == 0, result.output
    assert "no person 3 from the left" in told(
        CliRunner().invoke(app, [*dressing, *made, "--person-number", "3", "--overwrite"])
    )


@pytest.mark.usefixtures("no_weights")
def test_masks_are_looked_at_before_weights_are_loaded(dressing: list[str], folder: Path) -> None:
    thin = Image.new("L", (64, 96))
    thin.paste(255, (33, 0, 36, 96))
    thin.save(folder / "thin.png")
    message = told(CliRunner().invoke(app, [*dressing, f"--mask={folder / 'thin.png'}"]))
    assert "mask 0 has 288 white pixels, so few and thin that none is left" in message


def test_a_photograph_for_a_mask_is_told(dressing: list[str], folder: Path) -> None:
    result = CliRunner().invoke(app, [*dressing, f"--mask={folder / 'person.png'}"])
    assert result.exit_code == 0, result.output
    assert "note: mask 0 is grey in" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--guidance", "nan"), "'--guidance': Input should be less than or equal to 1000"),
        (("--fps", "inf"), "--fps is inf; give a finite number"),
        (("--steps", "1001"), "less than or equal to 1000, but was '1001'"),
        (("--seed", str(2**70)), "less than or equal to 4611686018427387904"),
        (
            ("--size", "99999x99999"),
            "--size is 99999x99999; at most 67 million",
        ),
        (("--size", "33x32"), "must be multiples of 8"),
        (("--frames", "4"), "4 frames were asked for, but the pose film has 3"),
        (("--checkpoint", "none"), "leave out either it, or --checkpoint"),
        (("-r", "none.png"), "there is no picture none.png"),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_numbers_and_files_are_looked_at_first(typed: tuple[str, ...], message: str, folder: Path) -> None:
    assert re.search(message, told(animate(folder, *TINY, *typed)))


def test_a_base_that_is_nowhere_is_told(folder: Path) -> None:
    message = told(animate(folder, "--checkpoint", str(folder), "--base", "sd15"))
    assert "there is no --base sd15; give a folder, or a name on the hub" in message


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("command", ["face", "tryon", "compose", "animate", "turn"])
def test_an_older_result_is_never_replaced_unasked(command: str, folder: Path) -> None:
    hero = str(folder / "hero.png")
    out = folder / ("film.mp4" if command in ("animate", "turn") else "made.png")
    out.write_text("of an older run")
    given = {
        "animate": ["-r", hero, "-p", str(folder / "poses.mp4")],
        "face": ["a person", "-f", hero],
        "tryon": ["-p", hero, "-g", hero, "--densepose", hero, "--mask", hero],
        "turn": ["-r", hero],
        "compose": ["--part", f"face={hero}", "--mask", f"face={hero}", "--pose", hero],
    }[command]
    said = told(CliRunner().invoke(app, [command, *given, "-o", str(out), "--random-tiny"]))
    assert f"{out.name} is there already; give another --out, or --overwrite" in said
    assert out.read_text() == "of an older run"
