"""`refnet doctor`: what it finds, and its self-test."""

import json
from pathlib import Path

import torch
from typer.testing import CliRunner

from referencenet.cli.app import app
from referencenet.version import __version__


def test_it_finds_versions_extras_devices_memory_and_models_and_draws(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    result = CliRunner().invoke(app, ["doctor", "--json", str(found), "--models", str(tmp_path)])
    assert result.exit_code == 0, result.output
    findings = json.loads(found.read_text())
    assert findings["versions"]["referencenet"] == __version__
    assert findings["versions"]["torch"] == torch.__version__
    assert "peft" in findings["extras"]["lora"]
    assert "cores" in findings["devices"]["cpu"]
    assert "GiB free" in findings["memory"]["memory"]
    assert findings["models"]["MediaPipe"] == f"{tmp_path}: 0 of 6 whole; run `refnet models fetch`"
    assert findings["self-test"]["result"] == "passed"
    assert all(value in result.output for rows in findings.values() for value in rows.values())


def test_a_package_that_is_missing_is_told_with_the_command_that_installs_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("referencenet.cli.doctor.requires", lambda _: ["no-such-package>=1; extra == 'lora'"])
    found = tmp_path / "new" / "found.json"
    result = CliRunner().invoke(app, ["doctor", "--no-test", "--json", str(found)])
    assert result.exit_code == 0, result.output
    missing = json.loads(found.read_text())["extras"]["lora"]
    assert missing == "missing: no-such-package (pip install 'referencenet[lora]')"
