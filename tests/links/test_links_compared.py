"""The comparison of links runs from the first picture to the page, at tiny size, and goes on where it stopped."""

import json
from pathlib import Path

import links_compared
import pytest
from link_arms import ARMS

from referencenet.training.checkpoint import RunFolder


@pytest.mark.slow
def test_the_whole_comparison_runs(tmp_path: Path) -> None:
    docs, folder = tmp_path / "docs", tmp_path / "runs"
    for what in (["train-base"], ["train"], ["measure"], ["page"], ["train"]):  # the last one has nothing to do
        links_compared.main([*what, "--tiny", "--folder", str(folder), "--docs", str(docs)])
    found = json.loads((docs / "links.json").read_text())
    assert set(found) == {*ARMS, "base", "truth"}
    for name, arm in ARMS.items():
        run = RunFolder(folder / "runs" / name)
        assert [path.name for path in run.checkpoints()] == ["step-00000004"]
        assert len(run.records()) == 1
        assert set(found[name]["errors"]) == ({"linked", "cut", "wrong"} if arm.written else {"linked"})
        assert found[name]["costs"]["flops"]["step"] > 0
    assert found["none"]["costs"]["flops"]["once"] == 0
    assert found["truth"]["identity"] > found["none"]["identity"]
    page = (docs / "links.md").read_text()
    assert all(f"| {arm.title} |" in page for arm in ARMS.values())
    assert "Unfinished" not in page


def test_an_unknown_arm_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        links_compared.main(["train", "glue", "--folder", str(tmp_path)])
    assert "there is no arm glue" in capsys.readouterr().err
