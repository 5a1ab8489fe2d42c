"""The comparison of links runs from the first picture to the page, at tiny size, and goes on where it stopped."""

import json
from pathlib import Path

import links_compared
import links_page
import pytest
from link_arms import ARMS

from house.source import ROOT
from referencenet.training.checkpoint import RunFolder


@pytest.mark.slow
def test_the_whole_comparison_runs(tmp_path: Path) -> None:
    docs, folder = tmp_path / "docs", tmp_path / "runs"
    for what in (["train-base"], ["train"], ["measure"], ["page"], ["train"]):  # the last one has nothing to do
        links_compared.main([*what, "--tiny", "--folder", str(folder), "--docs", str(docs)])
    found = json.loads((docs / "links.json").read_text())
    assert set(found) == {*ARMS, "base", "truth", "costs"}
    for name, arm in ARMS.items():
        run = RunFolder(folder / "runs" / name)
        assert [path.name for path in run.checkpoints()] == ["step-00000002"]
        assert len(run.records()) == 1
        assert set(found[name]["errors"]) == ({"linked", "cut", "wrong"} if arm.written else {"linked"})
    flops = {name: cost["flops"] for name, cost in found["costs"]["arms"].items()}
    assert flops["none"]["once"] == 0
    assert all(flops[name]["once"] > 0 and flops[name]["step"] > 0 for name in ARMS if name != "none")
    assert found["truth"]["identity"] > found["none"]["identity"]
    page = (docs / "links.md").read_text()
    assert all(f"| {arm.title} |" in page for arm in ARMS.values())
    assert "Unfinished" not in page


def test_an_unknown_arm_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        links_compared.main(["train", "glue", "--folder", str(tmp_path)])
    assert "there is no arm glue" in capsys.readouterr().err


def test_the_committed_page_is_made_of_the_committed_numbers() -> None:
    results = ROOT / "docs" / "results"
    known = json.loads((results / "links.json").read_text(encoding="utf-8"))
    assert (results / "links.md").read_text(encoding="utf-8") == links_page.text_of(known)
