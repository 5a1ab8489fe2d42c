"""The commands of docs/recipes.md, as they are typed, on tiny models that stand where a reader has his own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from house.source import ROOT
from owned import write_owned
from referencenet.cli.app import app
from tiny import picture

PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
HERE = PAGE.replace("<!-- needs an accelerator -->\n```console", "```elsewhere")
LINES = "".join(re.findall(r"^```console\n(.*?)^```$", HERE, re.MULTILINE | re.DOTALL)).splitlines()


@pytest.mark.slow
def test_every_command_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, since the last ones draw the first ones' pictures again."""
    monkeypatch.chdir(tmp_path)
    write_owned(tmp_path)
    picture(1).save("hero.png")
    assert len(LINES) >= 10
    for number, line in enumerate(LINES):
        words = shlex.split(line)[1:]
        result = CliRunner().invoke(app, words if "--steps" in words or words[0] == "again" else [*words, "--steps=2"])
        assert result.exit_code == 0, f"{line}\n{result.output}"
        assert (tmp_path / "out" / f"{number + 1:04d}" / "sheet.png").is_file()
