"""`refnet benchmark paperdoll` from the command line to the page, which says what the committed results say."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from house.source import ROOT
from referencenet.cli.app import app
from referencenet.evaluation.results import aims_met, page, read_results, write_page
from referencenet.evaluation.systems import TASKS
from referencenet.methods.registry import METHODS
from tiny import tiny_pipeline

RESULTS = ROOT / "docs" / "results"


def typed(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["benchmark", *words])
    return result.exit_code, result.output


def test_the_page_is_what_the_committed_results_say() -> None:
    assert (RESULTS / "index.md").read_text(encoding="utf-8") == page(read_results(RESULTS)), (
        "run `refnet benchmark page docs/results`"
    )


def test_every_system_has_a_row_and_one_without_a_result_says_so() -> None:
    lines = page({}).splitlines()
    for row in METHODS.values():
        if not row.beside:
            (line,) = [line for line in lines if line.startswith(f"| {row.title} |")]
            assert ("no result yet" if row.name in TASKS else "nothing is trained") in line


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a result of a tiny system, and the sheet beside it."""
    folder = tmp_path_factory.mktemp("results")
    tiny_pipeline("idm_vton").save_pretrained(folder / "weights")
    status, output = typed(
        "paperdoll", "idm_vton", f"--from={folder / 'weights'}", "--characters=2", "--steps=1", "--seed=3",
        "--note=Random weights.",
        f"--json={folder / 'idm_vton.json'}", f"--sheet={folder / 'sheet.png'}",
    )  # fmt: skip
    assert status == 0, output
    return folder


def test_a_result_holds_all_ways_and_scores(written: Path) -> None:
    told = json.loads((written / "idm_vton.json").read_text())
    assert set(told["scores"]) == {"truth", "autoencoder", "linked", "cut", "wrong", "training_free"}
    names = {measure.name for measure in TASKS["idm_vton"].measures}
    assert all(set(scores) == names for scores in told["scores"].values())
    assert (told["size"], told["characters"], told["seed"], told["steps"]) == ([48, 64], 2, 3, 1)
    assert told["gap_closed"]["autoencoder"] == 1
    assert told["scores"]["truth"]["error_in_mask"] == 0
    assert told["scores"]["truth"]["psnr_in_mask"] is None  # infinite
    assert (written / "sheet.png").is_file()


def test_a_page_shows_a_result_with_its_note_and_what_it_misses(written: Path) -> None:
    text = write_page(written).read_text(encoding="utf-8")
    assert "| [IDM-VTON](#idm-vton) | tryon |" in text
    assert "half of the gap: missed" in text
    assert "Random weights." in text
    assert "| Hallo | talk | no result yet |" in text


def test_aims_are_told_by_the_linked_networks_scores() -> None:
    film: dict[str, Any] = {"system": "animate_anyone", "gap_closed": {"linked": 0.6}}
    film["scores"] = {"linked": {"frame_error": 4.0}, "no_motion": {"frame_error": 5.0}}
    assert aims_met(film) == {"half of the gap": True, "motion modules help": True}
    talk = {"system": "hallo", "gap_closed": {"linked": 0.4}}
    talk["scores"] = {"linked": {"correlation": 0.7, "lag": 1.5}}
    assert aims_met(talk) == {"half of the gap": False, "correlation at least 0.6": True, "lag at most 1": False}


def test_what_cannot_be_measured_is_told(tmp_path: Path) -> None:
    status, output = typed("paperdoll", "idm_vto")
    assert status == 2
    assert "Did you mean 'idm_vton'" in output
    status, output = typed("paperdoll", "emo", "--characters=2")
    assert status == 2
    assert "no built-in weights 'emo' are shipped" in output
    status, output = typed("paperdoll", "emo", f"--from={tmp_path / 'nothing'}")
    assert status == 2
    assert "there is no --from" in output
    (tmp_path / "hallo.json").write_text('{"system": "emo"}')
    status, output = typed("page", str(tmp_path))
    assert status == 2
    assert "is no result of hallo" in output
