"""Commands without --checkpoint: the built-in weights where they are shipped, and how they are told from released ones.

Start pipelines, which are untrained, stand in their place: an empty folder of a task's weights changes nothing of them.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from referencenet.builtin import shipped, start
from referencenet.builtin.drawn import size_of
from referencenet.builtin.load import WEIGHTS
from referencenet.builtin.shipped import ShippedSystem, drawn_portrait, shipped_system
from referencenet.cli import checks
from referencenet.cli.app import app
from referencenet.cli.run import drawing_options
from referencenet.evaluation.showcase import shows, write_show
from referencenet.evaluation.systems import task_of
from referencenet.evaluation.talk import Talking
from referencenet.media.films import Film
from referencenet.media.images import read_image
from referencenet.paperdoll.film import talk
from referencenet.paperdoll.landmarks import face_box
from referencenet.paperdoll.maps import dense_map, dense_picture, lip_mask
from referencenet.paperdoll.picture_layouts import part_picture
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.skeleton import skeleton
from referencenet.paperdoll.tryon import agnostic_mask, flat_lay
from referencenet.paperdoll.video import write_wav
from referencenet.paperdoll.voice import SAMPLE_RATE, speech
from referencenet.training.recipes.index import recipe_of
from referencenet.ui.given import Limits
from referencenet.ui.jobs import Desk
from referencenet.ui.models import Models
from referencenet.ui.office import Office
from referencenet.ui.runs import Runs

SIZE = (48, 64)
WHOLE = Scene.from_seeds(3, 5, view="front", shot="full body", background="plain")
HEAD = talk(3, 5, num_frames=1).scenes[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of built-in weights in which every task's folder is there."""
    folder = tmp_path_factory.mktemp("builtin") / "weights"
    shutil.copytree(WEIGHTS, folder)
    for tasks in start.TASKS.values():
        for task in tasks:
            (folder / task).mkdir(exist_ok=True)
    return folder


@pytest.fixture
def files(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Drawn pictures, with built-in weights of every task in the place of the shipped ones."""
    pictures = {
        "person": render(WHOLE, SIZE),
        "garment": flat_lay(WHOLE.character, SIZE),
        "mask": agnostic_mask(WHOLE, SIZE),
        "dense": dense_picture(dense_map(WHOLE, SIZE)),
        "square": dense_picture(dense_map(WHOLE, 64)),
        "head": render(HEAD, 64),
        "skeleton": skeleton(WHOLE, SIZE),
    }
    pictures["shirt"], pictures["shirt_mask"] = part_picture(WHOLE, "upper body clothes", 64)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    (tmp_path / "poses").mkdir()
    for number in range(2):
        shutil.copy(tmp_path / "skeleton.png", tmp_path / "poses" / f"{number}.png")
    write_wav(tmp_path / "voice.wav", speech(1, 0.1), SAMPLE_RATE)
    monkeypatch.setattr(checks, "WEIGHTS", weights)
    for function in (shipped.shipped_system, start.is_shipped, start.load_system):
        monkeypatch.setitem(function.__kwdefaults__ or {}, "folder", weights)
    monkeypatch.setattr(shipped_system, "__defaults__", (weights,))
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = {
    "tryon": ("idm_vton", "tryon -p person.png -g garment.png --mask mask.png --densepose dense.png -o out.png"),
    "animate": ("animate_anyone", "animate -r person.png -p poses -o out"),
    "face": ("flashface", "face waving -f head.png --face-guidance 1.5 -o out.png"),
    "talk": ("hallo", "talk -r head.png -a voice.wav -o out"),
    "turn": ("diffportrait3d", "turn -r head.png --views 2 -o out"),
    "compose": (
        "parts2whole",
        "compose --part upper=shirt.png --mask upper=shirt_mask.png --pose square.png -p waving -o out.png",
    ),
}


def typed(command: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, command.split())
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("task", [
    pytest.param(task, marks=[pytest.mark.slow] if task in ("face", "talk", "turn") else []) for task in COMMANDS
])  # fmt: skip
def test_a_command_works_without_a_checkpoint_and_says_what_it_works_with(files: Path, task: str) -> None:
    system, command = COMMANDS[task]
    status, output = typed(f"{command} --steps 1 --device cpu")
    assert status == 0, output
    assert f"the small built-in weights of {system}, for drawn figures" in output
    assert f"refnet methods {system}" in output
    out = files / "out.png" if (files / "out.png").is_file() else files / "out"
    assert read_image(next(iter(Film(out))) if out.is_dir() else out).size == size_of(system)


ON_THE_PAGE = {
    "face": ({"faces": ["head.png"], "prompt": "waving"}, "face waving -f head.png -o {out}"),
    "talk": ({"reference": "head.png", "sound": "voice.wav"}, "talk -r head.png -a voice.wav -o {out}"),
    "turn": ({"reference": "head.png", "views": 2}, "turn -r head.png --views 2 -o {out}"),
}  # fmt: skip
"""Tab to what it is given, and what is typed for that."""


@pytest.mark.slow
@pytest.mark.parametrize("tab", ON_THE_PAGE)
def test_the_web_page_draws_by_them_as_the_command_does(files: Path, tab: Any) -> None:
    desk, runs = Desk(), Runs(files / "runs")
    office = Office(Models(device="cpu"), desk, runs, Limits(), str)
    model = next(row.value for row in office.models.rows(tab) if row.kind == "built in")
    values, command = ON_THE_PAGE[tab]
    run = office.begin(tab, {**values, "model": model, "steps": 1, "seed": 3}).future.result(300)
    assert desk.close(30)
    runs.close()
    out = files / f"typed{run.files[0].suffix}"
    status, output = typed(f"{command.format(out=out)} --steps 1 --seed 3 --device cpu")
    assert status == 0, output
    if out.suffix == ".png":
        assert read_image(run.files[0]).tobytes() == read_image(out).tobytes()
    else:
        for ours, theirs in zip(Film(run.files[0]), Film(out), strict=True):
            assert ours.tobytes() == theirs.tobytes()


def test_settings_of_the_small_networks_are_the_defaults(weights: Path) -> None:
    small = shipped_system(recipe_of("idm_vton").pipeline, weights)
    assert small is not None
    found = drawing_options(small.spec, None, None, None)
    assert found == {"width": 48, "height": 64, "num_inference_steps": 20, "guidance_scale": small.spec.scale}


def test_a_base_belongs_to_released_files(files: Path) -> None:  # noqa: ARG001 - they must be there
    status, output = typed(f"{COMMANDS['tryon'][1]} --base owner/name")
    assert status == 2
    assert "the built-in weights have their own" in output


def test_what_is_not_shipped_says_which_files_to_get(files: Path) -> None:  # noqa: ARG001 - they must be there
    status, output = typed("tryon -p person.png -g garment.png --mask mask.png --method catvton -o out.png")
    assert status == 2
    assert "zhengchong/CatVTON" in output


def test_files_to_get_are_also_told_by_methods() -> None:
    status, output = typed("methods idm_vton")
    assert status == 0
    assert "yisol/IDM-VTON" in output


def test_a_shipped_system_stands_in_the_place_of_its_class(weights: Path) -> None:
    small = shipped_system(recipe_of("hallo").pipeline, weights)
    assert isinstance(small, ShippedSystem)
    assert small.published is recipe_of("hallo").pipeline.published
    pipe = small.load()
    assert (pipe.spec.size, pipe.spec.steps) == (size_of("hallo"), 20)
    assert type(pipe).spec.size == (512, 512)
    assert shipped_system(recipe_of("emo").pipeline, weights) is None


def test_a_drawn_face_is_found_by_the_observer() -> None:
    portrait = drawn_portrait(render(HEAD, 128))
    left, top, right, bottom = face_box(HEAD, 128) * 128  # pyright: ignore[reportOptionalOperand]
    assert portrait.regions is not None
    rows, columns = np.nonzero(portrait.regions.place)  # pyright: ignore
    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert np.abs(np.array(found) - (left, top, right, bottom)).max() < 128 * 0.1
    lips = lip_mask(HEAD, 64)
    assert portrait.regions.lip[lips].mean() > 255 * 0.8  # pyright: ignore
    with pytest.raises(ValueError, match="crop it to a square"):
        drawn_portrait(render(HEAD, SIZE))


@pytest.mark.parametrize("name", ["dressing.png", pytest.param("turning.gif", marks=pytest.mark.slow),
                                  pytest.param("talking.mp4", marks=pytest.mark.slow)])  # fmt: skip
def test_the_demonstration_shows_what_is_shipped_beside_the_truth(weights: Path, tmp_path: Path, name: str) -> None:
    (show,) = [show for show in shows(weights) if show.file == name]
    cases = min(2, show.cases)
    path = write_show(replace(show, cases=cases), tmp_path, steps=1, folder=weights)
    frames = list(Film(path)) if path.suffix != ".png" else [read_image(path)]
    assert len(frames) == {"dressing.png": 1, "turning.gif": 8, "talking.mp4": 32}[name]
    task = task_of(show.system)
    assert frames[0].height == 128 * cases
    truth = np.asarray(frames[0])[:128, -(96 if name == "dressing.png" else 128) :]
    assert truth.std() > 20
    assert Film(path).has_sound == (task is Talking) if path.suffix != ".png" else True


def test_nothing_more_is_shown_where_nothing_is_shipped(tmp_path: Path) -> None:
    assert shows(tmp_path) == []
