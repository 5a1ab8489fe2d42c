"""The command as a person types it: help, version, one-line errors, exit statuses."""

import importlib
import subprocess
import sys
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner

from referencenet.cli.app import COMMANDS, MODULES, app
from referencenet.cli.console import tell_error
from referencenet.cli.paperdoll import Layout
from referencenet.methods.registry import METHODS
from referencenet.paperdoll.layouts import LAYOUTS
from referencenet.version import __version__


@pytest.fixture
def typed(monkeypatch):
    """Run `refnet` with arguments."""
    monkeypatch.setenv("DIFFUSERS_VERBOSITY", "error")
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_help_lists_every_command(typed):
    result = typed("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(typed, name):
    result = typed(name, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output
    assert isinstance(importlib.import_module(f"referencenet.cli.{MODULES.get(name, name)}").app, typer.Typer)


def test_version_names_the_package_and_torch(typed):
    result = typed("--version")
    assert result.exit_code == 0
    assert result.output.startswith(f"refnet {__version__} (python 3.")
    assert "torch" in result.output


def test_help_waits_for_neither_torch_nor_diffusers():
    code = (
        "import sys; from referencenet.cli.app import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'diffusers', 'numpy') if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["gnerate"], 2, "Did you mean 'generate'?"),
        (["methods", "--colour"], 2, "No such option: --colour"),
        (["methods", "imaginary"], 2, "error: There is no method 'imaginary'; there are animate_anyone"),
        (["paperdoll"], 2, "Missing option '--out'"),
        (["paperdoll", "--out", "x", "--layout", "cinema"], 2, "cinema"),
        (["paperdoll", "--out", "x", "--size", "9999"], 2, "less than or equal to 512"),
        (["generate", "--style-fidelity", "2"], 2, "less than or equal to 1"),
    ],
)
def test_wrong_use_is_told_in_one_line_with_status_two(typed, arguments, status, message):
    result = typed(*arguments)
    assert result.exit_code == status
    assert message in result.output
    assert "Traceback" not in result.output


def test_unexpected_errors_say_how_to_learn_more_and_have_status_one(capsys):
    assert tell_error(RuntimeError("out of\nmemory")) == 1
    assert capsys.readouterr().err.strip() == "error: RuntimeError: out of memory (refnet --debug shows where)"
    assert tell_error(PermissionError(13, "Permission denied", "/x")) == 1
    assert tell_error(FileNotFoundError("no a.png")) == 2


def test_debug_lets_the_traceback_through(typed):
    result = typed("--debug", "methods", "imaginary")
    assert isinstance(result.exception, ValueError)


def test_methods_lists_all_and_shows_one(typed):
    listed = typed("methods").output
    assert all(row.title in listed for row in METHODS.values())
    shown = typed("methods", "reference_only").output
    assert "methods.reference_only:reference" in shown
    assert "GPL-3.0" in shown
    dressed = typed("methods", "IDM-VTON").output
    assert "viton_hd: tryon" in dressed
    assert "small weights for drawn figures" in dressed
    assert not set("{}'") & {*dressed.partition("\n\n")[0]}, "as people read it, not as Python does"


def test_paperdoll_writes_a_folder_and_refuses_to_write_twice(typed, tmp_path):
    arguments = ["paperdoll", "--out", str(tmp_path / "new"), "--count", "2", "--size", "64", "--workers", "1"]
    assert typed(*arguments).exit_code == 0
    assert any((tmp_path / "new").rglob("*.png"))
    assert typed(*arguments).exit_code == 2


def test_paperdoll_offers_every_layout():
    assert set(get_args(Layout)) == set(LAYOUTS)
