"""What tests of commands share."""

from pathlib import Path

import pytest

from referencenet.cli import checks, run


@pytest.fixture
def nothing_shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a package without built-in weights of the published systems, whatever this one ships."""
    monkeypatch.setattr(checks, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(run, "shipped_system", lambda _pipeline: None)
