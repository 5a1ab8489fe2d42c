"""What the tabs ask for: every tab's example is drawn, as the command of the same task draws it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from referencenet.cli.app import app
from referencenet.media.films import Film
from referencenet.media.images import read_image
from referencenet.ui import examples as made
from referencenet.ui.examples import example_of, write_examples
from referencenet.ui.given import Limits
from referencenet.ui.jobs import Cancelled, Desk
from referencenet.ui.models import TASKS, Models
from referencenet.ui.office import FILMS, Office
from referencenet.ui.runs import Runs

QUICK = {"size": "32x32", "steps": 2, "seed": 7}
SYSTEMS = [(tab, row.value) for tab in TASKS for row in Models(device="cpu").rows(tab)]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[Any, dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "SIDE", 64)
        yield write_examples(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    desk, runs = Desk(), Runs(tmp_path_factory.mktemp("out"))
    yield Office(Models(device="cpu"), desk, runs, Limits(), str)
    assert desk.close(30)
    runs.close()


def drawn(office: Office, tab: Any, values: Mapping[str, Any], model: str | None = None) -> Any:
    chosen = model or office.models.rows(tab)[0].value
    return office.begin(tab, {**values, "model": chosen}).future.result(120)


@pytest.mark.parametrize(("tab", "model"), SYSTEMS)
def test_every_model_of_every_tab_draws_its_example(office: Office, examples: Any, tab: Any, model: str) -> None:
    example = example_of(examples, tab, office.models.find(tab, model))
    values = {**example, **QUICK, "side_by_side": True, "views": 2, "frames": 2, "fps": 4}
    if tab == "refer":
        values["size"] = "64x64"
    run = drawn(office, tab, values, model)
    assert run.settings["seed"] == 7
    assert run.settings["task"] == tab
    if tab in FILMS:
        film = Film(run.files[0])
        assert len(film) == 2
        assert film.has_sound == (tab == "talk")
        assert next(iter(film)).width > 32  # what was given stands beside it
    else:
        assert read_image(run.files[0]).width > read_image(run.files[0]).height


def test_a_picture_is_the_one_that_refnet_generate_draws(office: Office, examples: Any, tmp_path: Path) -> None:
    run = drawn(office, "refer", {**examples["refer"], "steps": 2, "seed": 7, "count": 2})
    hero = examples["refer"]["reference"]["background"]
    typed = ["generate", f"--reference={hero}", f"--prompt={examples['refer']['prompt']}", "--steps=2", "--seed=7"]
    assert CliRunner().invoke(app, [*typed, "--count=2", f"--out={tmp_path}", "--device=cpu"]).exit_code == 0
    for file in run.files:
        assert read_image(file).tobytes() == read_image(next(tmp_path.rglob(file.name))).tobytes()


def test_a_person_is_dressed_as_refnet_tryon_does(office: Office, examples: Any, tmp_path: Path) -> None:
    values = examples["dress"]
    run = drawn(office, "dress", {**values, **QUICK}, "tiny:idm_vton:")
    mask = np.asarray(Image.open(values["person"]["layers"][0]))[..., 3]
    Image.fromarray(mask).save(tmp_path / "mask.png")
    typed = ["tryon", "--random-tiny", "--device=cpu", "--steps=2", "--seed=7", "--size=32x32", "--method=idm_vton",
             f"--person={values['person']['background']}", f"--garment={values['garment']}",
             f"--mask={tmp_path / 'mask.png'}", f"--densepose={values['densepose']}",
             f"--description={values['garment_description']}", f"--out={tmp_path / 'out.png'}"]  # fmt: skip
    assert CliRunner().invoke(app, typed).exit_code == 0
    assert read_image(run.files[0]).tobytes() == read_image(tmp_path / "out.png").tobytes()


def test_a_film_is_the_one_that_refnet_animate_draws(office: Office, examples: Any, tmp_path: Path) -> None:
    values = examples["animate"]
    run = drawn(office, "animate", {**values, **QUICK, "frames": 2}, "tiny:animate_anyone:")
    typed = ["animate", "--random-tiny", "--device=cpu", "--steps=2", "--seed=7", "--size=32x32", "--frames=2"]
    typed += [f"--reference={values['reference']}", f"--poses={values['poses']}", f"--out={tmp_path / 'a.mp4'}"]
    assert CliRunner().invoke(app, typed).exit_code == 0
    for ours, theirs in zip(Film(run.files[0]), Film(tmp_path / "a.mp4"), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_a_person_stands_in_the_pose_of_a_skeleton(office: Office, examples: Any) -> None:
    values = {**examples["refer"], "steps": 1, "link": "referencenet"}
    assert drawn(office, "refer", values).settings["link"] == "referencenet"
    with pytest.raises(ValueError, match="give a skeleton"):
        drawn(office, "refer", values | {"pose": None})


@pytest.mark.parametrize(
    ("tab", "changes", "says"),
    [
        ("refer", {"reference": None}, "give a picture to refer to"),
        ("refer", {"link": "glue"}, "the link is 'glue'"),
        ("compose", {"part_1": None, "part_2": None}, "0 parts were given"),
        ("compose", {"label_2": "face"}, "was given twice"),
        ("dress", {"garment": None}, "give a picture of the garment"),
        ("face", {"faces": None}, "give photographs of the face"),
        ("animate", {"poses": None}, "give a film of drawings"),
        ("animate", {"frames": 99}, "99 frames were asked for"),
        ("talk", {"sound": None}, "give a sound"),
        ("talk", {"model": "tiny:aniportrait:"}, "give the portrait's own face track"),
        ("turn", {"yaw_from": 30, "yaw_to": -30}, "give the smaller angle first"),
        ("turn", {"model": "saved:diffportrait3d:/etc"}, "is not in the list"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_drawn(
    office: Office, examples: Any, tab: Any, changes: dict[str, Any], says: str
) -> None:
    values = {"model": office.models.rows(tab)[0].value, **examples[tab], **changes}
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        office.begin(tab, values)


def test_a_dressed_person_needs_paint_or_a_mask(office: Office, examples: Any) -> None:
    person = {**examples["dress"]["person"], "layers": []}
    with pytest.raises(ValueError, match="paint over what is to be repainted"):
        drawn(office, "dress", {**examples["dress"], "person": person})


@pytest.mark.parametrize("tab", ["refer", "animate", "talk"])
def test_a_cancelled_job_leaves_nothing(office: Office, examples: Any, tab: Any) -> None:
    model = office.models.rows(tab)[0].value
    job = office.begin(tab, {**examples[tab], **QUICK, "size": "64x64", "steps": 50, "model": model})
    while not job.step and not job.future.done():
        pass
    job.cancel()
    with pytest.raises(Cancelled):
        job.future.result(60)
    assert not [path for path in office.runs.folder.iterdir() if path.name.startswith(".unfinished")]


def test_few_models_stay_loaded_and_busy_ones_always_do() -> None:
    models = Models(device="cpu")
    rows = models.rows("dress")[:3]
    first = models.pipeline("dress", rows[0], is_busy=lambda _: False)
    assert models.pipeline("dress", rows[0], is_busy=lambda _: False) is first
    second = models.pipeline("dress", rows[1], is_busy=lambda _: True)
    models.pipeline("dress", rows[2], is_busy=lambda _: True)
    assert models.pipeline("dress", rows[0], is_busy=lambda _: True) is first
    models.pipeline("face", models.rows("face")[0], is_busy=lambda _: False)
    assert models.pipeline("dress", rows[0], is_busy=lambda _: False) is first
    assert models.pipeline("dress", rows[1], is_busy=lambda _: False) is not second
