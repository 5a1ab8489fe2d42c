"""What decided a result stands in it, and `refnet again` draws the same bits from there, for every drawing command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner, Result

from commands import told
from films import poses
from referencenet.builtin.training import benchmark
from referencenet.cli.again import DRAWING
from referencenet.cli.app import app
from referencenet.evaluation import showcase
from referencenet.media.films import Film, write_film
from referencenet.media.records import KEY, png_text, read_record
from referencenet.paperdoll.voice import speech
from referencenet.preprocess.conditions import CONDITIONS, Condition
from referencenet.preprocess.face_geometry import pose_matrices
from referencenet.preprocess.regions import Region
from sounds import write_sound
from tiny import picture


class Inverted(Condition):
    """A condition that needs no fetched networks: the whole picture, its colours turned round."""

    def __init__(self, folder: Path) -> None:
        pass

    def regions(self, image: Image.Image) -> list[Region]:
        return [Region.whole(image.size)]

    def read(self, image: Image.Image, region: Region) -> Image.Image:  # noqa: ARG002
        return ImageOps.invert(image)

    def draw(self, value: Image.Image, size: tuple[int, int]) -> list[Image.Image]:
        return [value.resize(size)]


TINY = ("--random-tiny", "--steps", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, poses and a voice."""
    folder = tmp_path_factory.mktemp("again")
    for i, name in enumerate(("hero", "garment", "pose")):
        picture(i, (32, 48)).save(folder / f"{name}.png")
    Image.new("L", (32, 48), 255).save(folder / "mask.png")
    half = Image.new("L", (32, 48))
    half.paste(255, (0, 0, 16, 48))
    cut = picture(4, (32, 48))
    cut.putalpha(half)
    cut.save(folder / "part.png")
    write_film(poses(3), folder / "poses.mp4", 12)
    write_sound(folder / "voice.wav", speech(0, 0.2, 16000), 16000)
    vertices = np.random.default_rng(0).normal(size=(1, 468, 3)) * 4
    matrices = pose_matrices(np.array([[5.0, 0, 0, 0, 0, -30]]))
    np.savez(folder / "face.npz", vertices=vertices, matrices=matrices, width=512, height=512, rate=30)
    return folder


TYPED = {
    "tryon": (["-p", "hero.png", "-g", "garment.png", "--mask", "mask.png", "--method", "catvton", "--size", "32x48",
               "--count", "2", *TINY], "worn-2.png"),
    "face": (["a knight", "-f", "hero.png", "--box", "0,0,30,40", "--count", "2", "--seed", "3", *TINY], "her-2.png"),
    "compose": (["--part", "face=part.png", "--pose", "pose.png", "-p", "a person", "--size", "32x48", *TINY],
                "person.png"),
    "animate": (["-r", "hero.png", "-p", "poses.mp4", "--frames", "2", *TINY], "film.webm"),
    "turn": (["-r", "hero.png", "--views", "2", "--size", "32", "--yaw", "-30:30", *TINY], "turned.mp4"),
    "talk": (["-r", "hero.png", "--face", "face.npz", "-a", "voice.wav", "--size", "32", *TINY], "talk.mp4"),
}  # fmt: skip
"""Command to what is typed, and the result that is drawn again; `generate` has a test of its own."""


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *typed: str) -> Result:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(app, [*typed])
    assert "Traceback" not in result.output
    return result


def pixels(path: Path) -> np.ndarray:
    if path.suffix == ".png":
        with Image.open(path) as image:
            return np.array(image)
    return np.stack([np.asarray(frame) for frame in Film(path)])


def test_every_drawing_command_is_here() -> None:
    assert {*TYPED, "generate", "preprocess", "demo"} == set(DRAWING)


QUICK = ("tryon", "animate")


@pytest.mark.parametrize(
    "command", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TYPED]
)
def test_it_draws_the_same_bits(folder: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    typed, name = TYPED[command]
    made = run(folder, monkeypatch, command, *typed, "--out", name.replace("-2.png", ".png"))
    assert made.exit_code == 0, made.output
    first = folder / name
    record = read_record(first)
    assert record["again"]["command"] == command
    assert record["again"]["files"]
    result = run(folder, monkeypatch, "again", str(first.relative_to(folder)))
    assert result.exit_code == 0, result.output
    again = first.with_stem(f"{first.stem}-again")
    assert np.array_equal(pixels(first), pixels(again))
    assert read_record(again)["again"] == record["again"]
    refused = run(folder, monkeypatch, "again", str(first))
    assert refused.exit_code == 2
    assert f"{again.name} is there already" in told(refused)


@pytest.mark.parametrize(("name", "shown", "again"), [("film.gif", "film.gif", "film-again.gif"),
                                                      ("frames", "frames/000001.png", "frames-again")])  # fmt: skip
def test_a_gif_and_a_frame_of_a_folder_draw_their_film_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, shown: str, again: str
) -> None:
    made = run(folder, monkeypatch, "animate", *TYPED["animate"][0], "--out", name)
    assert made.exit_code == 0, made.output
    (folder / f"{name}.json").write_text('{"referencenet": "of another film"}')  # what is inside is read
    result = run(folder, monkeypatch, "again", shown)
    assert result.exit_code == 0, result.output
    assert np.array_equal(pixels(folder / name), pixels(folder / again))


def test_what_is_preprocessed_says_how(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONDITIONS, "openpose", Inverted)
    made = run(folder, monkeypatch, "preprocess", "poses.mp4", "--to", "openpose", "--frames", "2", "-o", "drawn",
               "--preview", "both.gif")  # fmt: skip
    assert made.exit_code == 0, made.output
    said = read_record(folder / "drawn" / "000000.png")["again"]
    assert said["command"] == "preprocess"
    assert {name: Path(value).name if name == "source" else value for name, value in said["options"].items()} == {
        "source": "poses.mp4", "to": "openpose", "frames": 2,
    }  # fmt: skip
    assert read_record(folder / "both.gif")["again"] == said == read_record(folder / "drawn")["again"]
    assert run(folder, monkeypatch, "again", "drawn/000001.png").exit_code == 0
    assert np.array_equal(pixels(folder / "drawn"), pixels(folder / "drawn-again"))
    assert run(folder, monkeypatch, "preprocess", "hero.png", "--to", "openpose", "-o", "one.png").exit_code == 0
    assert read_record(folder / "one.png")["again"]["options"]["to"] == "openpose"
    assert (folder / "one.png.json").is_file()


@pytest.mark.slow
def test_a_demonstration_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dressing = next(show for show in showcase.SHOWS if show.file == "dressing.png")
    monkeypatch.setattr(showcase, "SHOWS", [replace(dressing, cases=1)])
    monkeypatch.setattr(benchmark, "STEPS", 2)
    made = run(tmp_path, monkeypatch, "demo", "--characters", "1", "--seed", "3", "--out", "shown")
    assert made.exit_code == 0, made.output
    said = read_record(tmp_path / "shown" / "demo.png")["again"]
    assert said == {"command": "demo", "options": {"characters": 1, "seed": 3}, "files": {}}
    assert json.loads((tmp_path / "shown" / "demo.json").read_text())["again"] == said
    for name in ("hero.png", "dance.mp4", "dressing.png"):
        assert read_record(tmp_path / "shown" / name)["again"] == said
    assert run(tmp_path, monkeypatch, "again", "shown/hero.png").exit_code == 0
    assert np.array_equal(*(pixels(tmp_path / name / "demo.png") for name in ("shown", "shown-again")))


def test_pictures_of_a_run_are_drawn_again_in_a_new_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["-r", "hero.png", "-p", "waving", "--count", "2", "--seed", "5", "--steps", "1", "--strength", "0.5"]
    assert run(folder, monkeypatch, "generate", *typed, "--link", "both", "--out", "out").exit_code == 0
    result = run(folder, monkeypatch, "again", "out/0001/seed-6.png")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["0001", "0002"]
    assert not (folder / "out" / "0002" / "seed-5.png").exists()
    assert np.array_equal(*(pixels(folder / "out" / name / "seed-6.png") for name in ("0001", "0002")))
    whole = run(folder, monkeypatch, "again", "out/0002/sheet.png", "--steps", "2", "--link=adain", "--out", "other")
    assert whole.exit_code == 0, whole.output
    settings = json.loads((folder / "other" / "0001" / "settings.json").read_text())["settings"]
    assert (settings["steps"], settings["link"], settings["seed"], settings["strength"]) == (2, "adain", 6, 0.5)


def test_changed_and_missing_files_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(7, (32, 48)).save(folder / "other.png")
    typed = ["-p", "other.png", "-g", "garment.png", "--mask", "mask.png", "--method", "catvton", "--size", "32x48"]
    assert run(folder, monkeypatch, "tryon", *typed, *TINY, "--out", "changed.png").exit_code == 0
    picture(8, (32, 48)).save(folder / "other.png")
    result = run(folder, monkeypatch, "again", "changed.png")
    assert result.exit_code == 0
    assert "other.png is missing or no longer what it was; the result will differ" in told(result)


def with_text(path: Path, text: str) -> None:
    info = png_text({})
    info.chunks.clear()
    info.add_itxt(KEY, text)
    picture(1).save(path, pnginfo=info)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not say how it was drawn: it has no settings in it, and there is no bad.png.json"),
        ("{", "the settings of bad.png cannot be read"),
        ("[" * 100_000, "the settings of bad.png cannot be read"),
        ("[1]", "bad.png was not drawn by refnet"),
        ('{"referencenet": "1"}', "does not say by which command"),
        ('{"referencenet": "1", "again": {"command": "train", "options": {}}}', "does not say by which command"),
        (
            '{"referencenet": "1", "again": {"command": "tryon", "options": {"magic": 1}}}',
            "tryon has no setting 'magic'",
        ),
        (
            '{"referencenet": "1", "again": {"command": "tryon", "options": {"person": ["a", "b"]}}}',
            "expected one value, not a list",
        ),
        (
            '{"referencenet": "1", "again": {"command": "tryon", "options": {"size": {"a": 1}}}}',
            "expected a number or words",
        ),
        ('{"referencenet": "1", "again": {"command": "tryon", "options": {}}}', "Missing option"),
    ],
)
def test_a_picture_that_says_nothing_good_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, message: str
) -> None:
    picture(1).save(tmp_path / "bad.png") if text is None else with_text(tmp_path / "bad.png", text)
    result = run(tmp_path, monkeypatch, "again", "bad.png")
    assert result.exit_code == 2, result.output
    assert message in told(result)


@pytest.mark.parametrize("name", ["nothing.png", "notes.txt", "film.mp4"])
def test_what_is_no_picture_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name != "nothing.png":
        (tmp_path / name).write_text("notes")
    result = run(tmp_path, monkeypatch, "again", name)
    assert result.exit_code == 2
    assert "there is no" in told(result) or "that can be read" in told(result)


def test_pictures_without_text_are_drawn_from_the_json_beside_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed: list[Any] = ["-p", "hero.png", "-g", "garment.png", "--mask", "mask.png", "--method", "catvton"]
    assert run(folder, monkeypatch, "tryon", *typed, "--size", "32x48", *TINY, "--out", "worn.bmp").exit_code == 0
    result = run(folder, monkeypatch, "again", "worn.bmp")
    assert result.exit_code == 0, result.output
    with Image.open(folder / "worn.bmp") as one, Image.open(folder / "worn-again.bmp") as two:
        assert one.tobytes() == two.tobytes()
