"""A result does not take the place of what it is made from, whatever command writes it and however it is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands import told
from referencenet.cli.app import app
from tiny import picture

TASKS = {
    "another of several pictures": ("tryon -p out-2.png -g a.png --mask a.png --densepose a.png -n 2 -o out.png",
                                    "--person"),
    "behind a label": ("compose --part face=out.png --mask face=a.png --pose a.png -o out.png", "--part"),
    "the mask": ("compose --part face=a.png --mask face=out.png --pose a.png -o out.png", "--mask"),
    "the preview": ("face she -f out-preview.png -o out.png", "--face"),
    "the settings": ("animate -r a.png -k film.mp4.json -o film.mp4", "--keypoints"),
    "a frame": ("animate -r frames/000000.png -p poses -o frames", "--reference"),
    "the folder": ("turn -r a.png --cameras frames -o frames", "--cameras"),
}  # fmt: skip
OTHERS = {
    "a run's picture": ("generate -r run/seed-4.png -p a -o run --overwrite", "--reference"),
    "its sheet": ("generate -r a.png --mask run/sheet.png -p a -o run --overwrite", "--mask"),
    "what it begins from": ("generate -r a.png --image run/seed-4.png -p a -o run --overwrite", "--image"),
    "a style": ("generate --style run/seed-4.png -p a -o run --overwrite", "--style"),
    "a condition": ("generate -r a.png --control pose=run/seed-4.png --controlnet pose=net -p a -o run --overwrite",
                    "--control"),
    "a picture itself": ("preprocess out.png --to person-mask -o out.png --overwrite", "film or picture or folder"),
    "frames": ("preprocess frames --to openpose -o frames --overwrite", "film or picture or folder"),
    "a frame of a folder": ("preprocess frames/000000.png --to openpose -o frames/000000.png --overwrite",
                            "film or picture or folder"),
    "a preview": ("preprocess a.png --to person-mask -o b.png --preview a.png --overwrite",
                  "film or picture or folder"),
    "a drawing": ("preprocess c-lips.png --to face-masks -o c.png --overwrite", "film or picture or folder"),
    "a folder of files": ("convert animate_anyone empty -o empty", "folder or file"),
    "a folder beside": ("convert animate_anyone a.png --vae empty -o empty", "--vae"),
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures under names of results; the folder is the current one."""
    monkeypatch.chdir(tmp_path)
    for folder in ("frames", "poses", "run", "empty", "net"):
        (tmp_path / folder).mkdir()
    for i, name in enumerate((
        "a", "out", "out-2", "out-preview", "c-lips", "frames/000000", "poses/000000", "run/seed-4", "run/sheet",
        "run/hero",
    )):  # fmt: skip
        picture(i, (48, 48)).save(tmp_path / f"{name}.png")
    (tmp_path / "film.mp4.json").write_text("[]")
    (tmp_path / "net" / "config.json").write_text("{}")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("case", [*TASKS, *OTHERS])
def test_what_is_given_is_not_replaced(case: str, here: Path) -> None:
    typed, option = {**TASKS, **OTHERS}[case]
    further = ["--random-tiny", "--overwrite", "--device", "cpu"] if case in TASKS else []
    before = contents(here)
    result = CliRunner().invoke(app, [*typed.split(), *further])
    assert result.exit_code == 2, result.output
    assert f"is what {option} gives, and the result would take its place; give another --out" in told(result)
    assert contents(here) == before


def test_a_link_to_the_result_is_the_result(here: Path) -> None:
    (here / "linked.png").symlink_to(here / "out.png")
    typed = "tryon -p linked.png -g a.png --mask a.png --densepose a.png -o out.png --overwrite --random-tiny"
    assert "out.png is what --person gives" in told(CliRunner().invoke(app, typed.split()))


def test_what_stays_in_the_folder_may_be_given(here: Path) -> None:
    typed = "generate -r run/hero.png -p red -o run --overwrite --steps 1 --size 32 --seed 7 --device cpu"
    before = (here / "run" / "hero.png").read_bytes()
    result = CliRunner().invoke(app, typed.split())
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (here / "run").glob("*.png")) == ["hero.png", "seed-7.png", "sheet.png"]
    assert (here / "run" / "hero.png").read_bytes() == before
    result = CliRunner().invoke(app, "generate --settings run/settings.json -o run --overwrite".split())
    assert result.exit_code == 0, result.output  # read whole before it is written anew
