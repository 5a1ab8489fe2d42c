"""What stands folded away in the tabs: each option draws what the command draws with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from docs.desk import write_track
from referencenet.cli.app import app
from referencenet.media.films import Film, write_film
from referencenet.media.images import read_image
from referencenet.media.records import read_record
from referencenet.preprocess.body import BodyPoints
from referencenet.preprocess.conditions import CONDITIONS, OpenPose
from referencenet.preprocess.regions import Region
from referencenet.ui.given import Limits
from referencenet.ui.jobs import Desk
from referencenet.ui.models import Models
from referencenet.ui.office import Office
from referencenet.ui.runs import Runs
from talking import face_points
from tiny import picture, tiny

POINTS = (np.random.default_rng(0).random((18, 2)) * (40, 56) + 4).round()
FILM = (64, 64)


class Standing(OpenPose):
    """Finds the same person in every picture: what the fetched networks would find."""

    def __init__(self, folder: Path) -> None:
        pass

    def regions(self, image: Image.Image) -> list[Region]:
        return [Region.whole(image.size)]

    def read(self, image: Image.Image, region: Region) -> BodyPoints:  # noqa: ARG002
        return BodyPoints(body=POINTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that are wider or higher than the results, films, points, tracks, a model and a ControlNet."""
    folder = tmp_path_factory.mktemp("more")
    for number, (name, size) in enumerate({"wide": (96, 48), "worn": (48, 96), "dense": (96, 48)}.items()):
        picture(number, size).save(folder / f"{name}.png")
    mask = Image.new("L", (96, 48))
    mask.paste(255, (24, 8, 72, 40))
    mask.save(folder / "mask.png")
    labels = np.zeros((64, 48), np.uint8)
    labels[20:40, 10:38], labels[4:14, 18:30] = 4, 11
    Image.fromarray(labels).save(folder / "parsing.png")
    picture(4, (48, 64)).save(folder / "person.png")
    (folder / "points.json").write_text(json.dumps(POINTS.tolist()))
    people = [{"people": [{"pose_keypoints_2d": np.c_[POINTS + i, np.ones(18)].ravel().tolist()}],
               "canvas_width": 48, "canvas_height": 64} for i in range(2)]  # fmt: skip
    (folder / "dance.json").write_text(json.dumps(people))
    (folder / "own.json").write_text(json.dumps(people[:1]))
    write_film([picture(10 + i, FILM) for i in range(2)], folder / "film.mp4", 8)
    np.savez(folder / "landmarks.npz", landmarks=np.stack([face_points(1)] * 2), rate=12)
    for name, frames in (("portrait", 1), ("driver", 2)):
        write_track(folder / f"{name}.npz", frames)
    tiny("sd").pipe.save_pretrained(folder / "model")
    tiny("controlnet").pipe.controlnet.save_pretrained(folder / "net")
    return folder


@pytest.fixture(scope="module")
def office(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    desk, runs = Desk(), Runs(tmp_path_factory.mktemp("out"))
    models = Models([str(folder / "model")], device="cpu", controlnets={"depth": str(folder / "net")})
    yield Office(models, desk, runs, Limits(), str)
    assert desk.close(30)
    runs.close()


def painted(name: str) -> Mapping[str, Any]:
    return {"background": name, "layers": []}


QUICK = {"steps": 1, "seed": 7}
ANIMATE = {"reference": "person.png", "size": "32x32", "frames": 2}
MOVED = "animate -r person.png --size 32x32 --frames 2 --random-tiny"
CASES = {
    "a style": (
        "refer", "built in::",
        {"reference": painted("wide.png"), "link": "aligned", "prompt": "waving", "style_prompt": "standing",
         "style_from": "noised", "style_weight": 2},
        "generate --style wide.png --prompt waving --style-prompt standing --style-from noised --style-weight 2",
    ),
    "a ControlNet": (
        "refer", "diffusers::{folder}/model",
        {"reference": painted("wide.png"), "prompt": "a", "controlnet": "depth", "control": "dense.png", "fit": "pad"},
        "generate -r wide.png --prompt a --model {folder}/model --controlnet depth={folder}/net --control "
        "depth=dense.png --fit pad",
    ),
    "a dressed person, cut": (
        "dress", "tiny:catvton:",
        {"person": painted("wide.png"), "garment": "worn.png", "mask": "mask.png", "size": "32x32", "fit": "pad"},
        "tryon -p wide.png -g worn.png --mask mask.png --method catvton --size 32x32 --fit pad --random-tiny",
    ),
    "a made mask": (
        "dress", "tiny:catvton:",
        {"person": painted("person.png"), "garment": "worn.png", "parsing": "parsing.png", "keypoints": "points.json",
         "category": "dresses", "size": "48x64"},
        "tryon -p person.png -g worn.png --parsing parsing.png --keypoints points.json --category dresses --method "
        "catvton --size 48x64 --random-tiny",
    ),
    "key points": (
        "animate", "tiny:animate_anyone:", {**ANIMATE, "keypoints": "dance.json", "fit_to": "own.json"},
        f"{MOVED} --keypoints dance.json --fit-to own.json",
    ),
    "an ordinary film": (
        "animate", "tiny:animate_anyone:", {**ANIMATE, "video": "film.mp4", "fit": "crop"},
        f"{MOVED} --video film.mp4 --fit crop",
    ),
    "landmarks": (
        "animate", "tiny:aniportrait:", {**ANIMATE, "landmarks": "landmarks.npz"},
        f"{MOVED} --method aniportrait --landmarks landmarks.npz",
    ),
    "a driving face": (
        "animate", "tiny:aniportrait:", {**ANIMATE, "driving": "driver.npz", "face": "portrait.npz"},
        f"{MOVED} --method aniportrait --driving driver.npz --face portrait.npz",
    ),
}  # fmt: skip
"""What is given to which tab and model, and what is typed for it."""


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setitem(CONDITIONS, "openpose", Standing)


@pytest.mark.parametrize("case", CASES)
def test_an_option_draws_what_the_command_draws(office: Office, folder: Path, tmp_path: Path, case: str) -> None:
    tab, model, values, typed = CASES[case]
    chosen: Any = {**values, **QUICK, "model": model.format(folder=folder)}
    run = office.begin(tab, chosen).future.result(120)  # pyright: ignore[reportArgumentType]
    out = tmp_path / {"refer": "out", "dress": "out.png", "animate": "out.mp4"}[tab]
    words = typed.format(folder=folder).split()
    done = CliRunner().invoke(app, [*words, "--steps=1", "--seed=7", "--device=cpu", f"--out={out}"])
    assert done.exit_code == 0, done.output
    if tab == "animate":
        for ours, theirs in zip(Film(run.files[0]), Film(out), strict=True):
            assert ours.tobytes() == theirs.tobytes()
    else:
        drawn = next(out.rglob("seed-7.png")) if out.is_dir() else out
        assert read_image(run.files[0]).tobytes() == read_image(drawn).tobytes()
        assert read_record(run.files[0])["seed"] == 7
    given = {key for key, value in values.items() if str(value).endswith((".png", ".json", ".npz", ".mp4"))}
    assert given <= run.settings["given"].keys()


@pytest.mark.parametrize(
    ("tab", "model", "values", "says"),
    [
        ("refer", "built in::", {"link": "aligned", "others": ["worn.png"]}, "the style is that of one picture"),
        ("refer", "built in::", {"controlnet": "depth", "control": "dense.png"}, "the built-in model has no Co"),
        ("refer", "diffusers::{folder}/model", {"controlnet": "pose", "control": "dense.png"}, "there are depth"),
        ("refer", "diffusers::{folder}/model", {"controlnet": "depth"}, "give a picture that the ControlNet depth"),
        ("refer", "built in::", {"fit": "squeeze"}, "the fit is 'squeeze'; expected crop, pad, stretch"),
        ("dress", "tiny:catvton:", {"parsing": "parsing.png"}, "a parsing and key points together; give both"),
        (
            "dress", "tiny:catvton:", {"parsing": "parsing.png", "keypoints": "points.json", "mask": "mask.png"},
            "give one of these",
        ),
        ("animate", "tiny:animate_anyone:", {"video": "film.mp4", "keypoints": "dance.json"}, "moves by one thing"),
        ("animate", "tiny:magic_animate:", {"video": "film.mp4"}, "densepose_rcnn_R_50_FPN_s1x_fp32.pt"),
        ("animate", "tiny:magic_animate:", {"landmarks": "landmarks.npz"}, "magic_animate is not moved by landmarks"),
        ("animate", "tiny:animate_anyone:", {}, "give a film of drawings"),
        ("animate", "tiny:aniportrait:", {"driving": "film.mp4"}, "refnet models fetch"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_anything_is_drawn(
    office: Office, folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Any, model: str, values: dict[str, Any],
    says: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("REFNET_MODELS", str(folder / "nothing"))
    usual = {"reference": painted("wide.png") if tab == "refer" else "person.png", "person": painted("person.png"),
             "garment": "worn.png", "model": model.format(folder=folder)}  # fmt: skip
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        office.begin(tab, {**usual, **values})
