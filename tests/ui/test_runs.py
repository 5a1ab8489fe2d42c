"""Results: a folder each, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from referencenet.media.films import write_film
from referencenet.media.sheets import write_image
from referencenet.ui.runs import Runs
from tiny import picture


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".results.lock")


def test_a_run_stands_with_its_settings_what_was_given_and_a_preview(tmp_path: Path) -> None:
    given = write_image(picture(1), tmp_path / "hero.png")
    runs = Runs(tmp_path / "out")
    run = runs.make(
        "refer", {"prompt": "a knight", "seed": 3, "size": None}, {"reference": given},
        lambda folder: [write_image(picture(2), folder / "a.png"), write_image(picture(3), folder / "b.png")],
    )  # fmt: skip
    assert names(tmp_path / "out") == [run.name]
    assert [path.name for path in run.files] == ["a.png", "b.png"]
    assert run.preview.read_bytes() == run.files[0].read_bytes()
    assert (run.preview.parent / run.settings["given"]["reference"]).read_bytes() == given.read_bytes()
    assert run.settings["prompt"] == "a knight"
    assert "size" not in run.settings
    assert [known.name for known in runs.known(["../hero", run.name, "20200101-000000-refer-0123456789abcdef"])] == [
        run.name
    ]
    runs.close()


def test_a_films_preview_is_its_first_frame(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    run = runs.make("turn", {}, {}, lambda folder: [write_film([picture(1), picture(2)], folder / "film.mp4")])
    assert run.preview.is_file()
    runs.close()


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    runs = Runs(tmp_path)

    def fail(folder: Path) -> list[Path]:
        write_image(picture(1), folder / "a.png")
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        runs.make("refer", {}, {}, fail)
    assert names(tmp_path) == []
    (tmp_path / ".unfinished-of-a-killed-page").mkdir()
    runs.close()
    assert names(tmp_path) == []


def test_a_second_page_does_not_write_into_the_same_folder(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    with pytest.raises(ValueError, match="another process is writing"):
        Runs(tmp_path)
    runs.close()
    Runs(tmp_path).close()


@pytest.mark.parametrize("name", ["", "..", "20200101-000000-refer-0123456789abcdeF", "/etc/passwd"])
def test_a_name_that_leads_elsewhere_is_none(tmp_path: Path, name: str) -> None:
    runs = Runs(tmp_path / "out")
    (tmp_path / "settings.json").write_text(json.dumps({"files": []}))
    with pytest.raises(ValueError, match="is not a name of a result"):
        runs.find(name)
    runs.close()
