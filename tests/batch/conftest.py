"""A folder with a tiny model and pictures, and jobs that draw with them in one step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny import picture, tiny


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, and three pictures; nobody changes them."""
    folder = tmp_path_factory.mktemp("batch")
    tiny("sd").pipe.save_pretrained(folder / "model")
    for i in range(3):
        picture(i).save(folder / f"p{i}.png")
    return folder


@pytest.fixture
def job(materials: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Make a job of `generate`, with any setting replaced."""
    monkeypatch.chdir(materials)
    usual = {"command": "generate", "prompt": "a knight", "reference": ["p0.png"], "model": "model", "steps": 1}
    return lambda **settings: usual | {"seed": 1} | settings


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write jobs to a file, a line each."""

    def write(*jobs: Any) -> Path:
        file = tmp_path / "jobs.jsonl"
        lines = [job if isinstance(job, str) else json.dumps(job) for job in jobs]
        file.write_text("\n".join(lines) + "\n")
        return file

    return write
