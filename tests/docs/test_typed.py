"""Every `refnet` command of README and the pages runs as it is typed, with few steps and small pictures appended.

Where a page speaks of published files, tiny ones of the same layout lie in their place; see `desk.py`.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from docs.desk import bring, commands_of, lay_out
from house.source import ROOT
from referencenet.batch import read_jobs
from referencenet.checkpoints.audio2lmk import AUDIO2LMK
from referencenet.cli.app import app
from referencenet.paperdoll.examples import write_examples
from referencenet.version import __version__
from tiny import tiny

OWN_TEST = {"recipes.md": "of one's own models: tests/cli/test_recipes.py"}
"""Pages whose commands another test types, and which."""
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name not in OWN_TEST)]

QUICKLY = {
    "generate": "--steps 1 --count 1",
    "animate": "--steps 1 --frames 4 --size 64x64",
    "talk": "--steps 1 --frames 4 --size 64x64",
    "tryon": "--steps 1 --size 96x128",
    "face": "--steps 1 --size 64x64 --count 1",
    "compose": "--steps 1 --size 48x64 --count 1",
    "turn": "--steps 1 --size 64x64 --views 2",
    "paperdoll": "--count 20 --size 64",
    "paperdoll --out data/heads": "--count 2 --size 64",
    "paperdoll --layout hdtf": "--count 2 --size 64",
    "paperdoll --layout ubc": "--count 3 --size 64",
    "doctor": "--no-test",
    "train": "--dry-run",
    "train idm_vton paperdoll": "--set steps=1 --set data.workers=0",
    "train animate_anyone paperdoll": "--set steps=1 --set data.workers=0",
    "train audio2lmk paperdoll": "--set steps=1 --set data.workers=0 --set data.frames=9",
    "turn --cameras": "--steps 1 --size 64x64",
}
"""What is appended to a command; the longest beginning counts."""

ELSEWHERE = {
    "demo": "draws for minutes, once in all: .ci/check_demo.py",
    "preprocess": "reads people in photographs by fetched networks: tests/cli/test_preprocess.py",
    "batch": "draws in processes of its own: tests/batch/test_run.py",
    "models fetch": "downloads: tests/preprocess/test_model_files.py",
    "convert emo": "reads AnimateDiff's file: tests/methods/test_emo_films.py",
    "ui": "serves until it is ended: tests/ui/test_serving.py",
    "train builtin": "takes hours: tests/builtin/training",
    "benchmark paperdoll": "takes minutes, and trained weights: tests/evaluation/test_results.py",
    "benchmark builtin": "takes minutes: tests/builtin/training",
}
"""Commands that are tried elsewhere, and where."""


def blocks_of(page: Path) -> list[str]:
    fenced = re.findall(r"^```(console|bash|text|)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [block for _, block in fenced]


def typed_on(page: Path) -> list[list[str]]:
    """The commands of a page, without those that are tried elsewhere."""
    found = [command for block in blocks_of(page) for command in commands_of(block)]
    return [words for words in found if not any(" ".join(words).startswith(each) for each in ELSEWHERE)]


def quick(words: list[str]) -> list[str]:
    """What is appended to a command."""
    line = " ".join([words[0], "--cameras"] if "--cameras" in words else words)
    beginnings = [begin for begin in QUICKLY if line.startswith(begin)]
    return QUICKLY[max(beginnings, key=len)].split() if beginnings else []


def out_of(words: list[str]) -> str | None:
    """Where a command's result goes."""
    options = [option for option in ("--out", "-o") if option in words]
    return words[words.index(options[0]) + 1] if options else None


@pytest.fixture(scope="module")
def demo_files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return {path.name for path in write_examples(tmp_path_factory.mktemp("demo"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_of_a_page_takes_the_place_of_anothers_file(page: Path, demo_files: set[str]) -> None:
    files = [out_of(words) for block in blocks_of(page) for words in commands_of(block)]
    files = [file for file in files if file is not None and Path(file).suffix]  # runs share a folder
    assert len({*files}) == len(files), sorted(files)
    assert not {*files} & demo_files, "a file of the demonstration"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[] if page.name == "README.md" else [pytest.mark.slow])
        for page in PAGES
        if typed_on(page)
    ],
)
def test_commands_run_as_they_are_typed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path
    if page.name == "README.md":  # what `make demo` leaves, and a Stable Diffusion model
        write_examples(folder)
        tiny("sd").pipe.save_pretrained(folder / "stable-diffusion-v1-5" / "stable-diffusion-v1-5")
    else:
        lay_out(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setitem(AUDIO2LMK.__dict__, "base_config", AUDIO2LMK.tiny_config)  # has one size, and reads another
    for words in typed_on(page):
        result = CliRunner().invoke(app, [*bring(folder, words), *quick(words)])
        line = f"refnet {' '.join(words)}"
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
        out = out_of(words)
        if out is not None:
            assert "--dry-run" in (*words, *quick(words)) or Path(out).exists() or list(Path().glob(f"{out}*")), line


def test_jobs_of_the_page_are_jobs_in_the_folder_of_the_demonstration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks_of(ROOT / "docs" / "batch.md") for line in block.splitlines() if line[:1] == "{"]
    Path("jobs.jsonl").write_text("\n".join(lines))
    assert [job.command for job in read_jobs("jobs.jsonl")] == ["generate", "generate", "tryon"]


@pytest.mark.parametrize("page", ["README.md", "docs/install.md"])
def test_what_pip_is_told_to_install_is_this_package(page: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for block in blocks_of(ROOT / page) for line in block.splitlines() if line.startswith("pip install")]
    words = [shlex.split(line, comments=True)[2:] for line in lines]
    assert [len(each) for each in words] == [1] * len(words)
    from_git = [Requirement(word) for (word,) in words if "@" in word]
    wheels = [Path(word) for (word,) in words if word.endswith(".whl")]
    assert wheels == [Path(f"dist/{project['name']}-{__version__}-py3-none-any.whl")]
    assert {each.name for each in from_git} == {project["name"]}
    assert {extra for each in from_git for extra in each.extras} <= project["optional-dependencies"].keys()
    addresses = {(each.url or "").removeprefix("git+") for each in from_git}
    assert addresses == {"file:///home/me/referencenet", "ADDRESS-OF-THIS-REPOSITORY"}  # it is on no known host
    assert {word for (word,) in words if "@" not in word and not word.endswith(".whl")} <= {"."}


def test_what_is_tried_elsewhere_is_tried_there() -> None:
    for where in (*ELSEWHERE.values(), *OWN_TEST.values()):
        assert (ROOT / where.rpartition(": ")[2]).exists(), where
