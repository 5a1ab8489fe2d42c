"""Hostile inputs: each is answered in one line, or taken rightly, within so much time and memory; nothing is left."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile.case import BYTES, SECONDS, Answer, Case
from hostile.forked import Forks, tables

CASES = [
    pytest.param(table, case, id=case.name, marks=pytest.mark.slow if case.slow else ())
    for table in tables()
    for case in importlib.import_module(f"hostile.{table}").TABLE.cases.values()
]


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """What runs cases."""
    process = Forks()
    yield process
    process.close()


def holdings(folder: Path) -> dict[str, str]:
    """Every file below a folder and what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        for path in folder.rglob("*")
        if not path.is_file() or path.stat().st_size < 2**24  # what is larger was made with holes in it
    }


@pytest.mark.parametrize(("table", "case"), CASES)
def test_answer(table: str, case: Case, forks: Forks, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    for make in case.make:
        make(folder)
    before = holdings(folder)
    answer = forks.run(table, case.name, folder)
    assert answer.status >= 0, f"ended by signal {-answer.status} after {answer.seconds:.0f} s: {answer.err[-2000:]}"
    assert answer.seconds < SECONDS, f"took {answer.seconds:.1f} s"
    assert answer.peak < BYTES, f"took {answer.peak / 2**30:.2f} GB"
    if not case.says:
        assert answer.status == 0, answer.err[-2000:]
        return
    line = told(answer)
    assert re.search(case.says, line), line
    assert holdings(folder) == before


def told(answer: Answer) -> str:
    """The one line of a refusal."""
    assert answer.status in (1, 2), f"status {answer.status}: {answer.out[-500:]} {answer.err[-2000:]}"
    said = [line for line in answer.err.splitlines() if line.strip() and not line.startswith(("note:", "warning:"))]
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 1, answer.err[-2000:]
    assert said[-1] == errors[0], answer.err[-2000:]
    assert "Traceback" not in answer.err
    assert "refnet --debug" not in errors[0], f"an error that nobody foresaw: {errors[0]}"
    return errors[0]
