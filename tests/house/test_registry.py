"""The rows of the thirteen systems, and of those beside them, are complete and true."""

import re

import pytest

import referencenet
from house.source import ROOT
from referencenet.methods.registry import METHODS, Method, by_name, find_method, markdown_table
from referencenet.parity.cases import read_content
from referencenet.parity.runners import runners

ROWS = list(METHODS.values())


def test_there_are_thirteen_and_two_need_no_training():
    assert len([row for row in ROWS if not row.beside]) == 13
    assert [row.name for row in ROWS if row.weights_licence == "no weights" and row.paper is None] == [
        "reference_only",
        "reference_adain",
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_is_complete(row):
    assert re.fullmatch(r"[a-z0-9_]+", row.name)
    assert row.paper is None or re.fullmatch(r"\d{4}\.\d{5}", row.paper)
    assert all((row.title, row.source, row.code_licence, row.weights_licence, row.base, row.link))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_state_is_true(row):
    """What works can be imported and stands in docs/, with golden cases here where something was published."""
    assert row.state in ("works", "works, from the paper", "works, beside them", "planned")
    goldens = sorted((ROOT / "tests" / "goldens").glob(f"{row.name}-*"))
    if row.state == "planned":
        assert (row.entry, row.task) == (None, None)
        return
    assert row.public_name in referencenet.__all__
    assert row.task is not None
    assert bool(goldens) == bool(row.parity) == (row.state == "works")
    kinds = {(case["method"], case["kind"]) for case in map(read_content, goldens)}
    assert kinds <= runners().keys()
    assert f"`{row.name}`" in "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))


def test_readme_shows_the_rows():
    assert markdown_table(ROWS) in (ROOT / "README.md").read_text(encoding="utf-8"), "copy markdown_table(...) there"


def test_registering_twice_raises():
    row = ROWS[0]
    with pytest.raises(ValueError, match="'reference_only' is registered twice"):
        by_name([row, Method(**{**vars(row), "title": "Another"})])


def test_unknown_names_are_refused_with_the_known_ones():
    assert find_method("hallo").paper == "2406.08801"
    with pytest.raises(ValueError, match="no method 'halo'; there are animate_anyone, aniportrait"):
        find_method("halo")
