import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from golden import GOLDENS, copy_case
from referencenet.cli.verify import run_verify

GOOD = GOLDENS / "reference_only-partial-weight"


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_exit_status_says_what_happened(tmp_path: Path) -> None:
    wrong = copy_case(GOOD.name, tmp_path / "wrong", change_outputs=lambda o: [v.mul_(1.01) for v in o.values()])
    unknown = copy_case(GOOD.name, tmp_path / "unknown", lambda content: content.update(kind="dance"))
    assert run_verify([GOOD], console=quiet()) == 0
    assert run_verify([GOOD, wrong], console=quiet()) == 1
    assert run_verify([GOOD, unknown], console=quiet()) == 2
    assert run_verify([wrong, unknown], console=quiet()) == 1


def test_table_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    run_verify([GOOD])
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith("1 of 1 cases passed")


def test_json_file_holds_the_results(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "results.json"
    run_verify([GOOD], json_file=file, console=quiet())
    document = json.loads(file.read_text())
    assert document["cases"][0]["id"] == GOOD.name
    assert document["exit_status"] == 0
