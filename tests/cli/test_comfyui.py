"""`refnet comfyui install`: the folder that it copies."""

from pathlib import Path

from typer.testing import CliRunner

from referencenet.cli.app import app


def test_the_pack_is_copied_and_not_over_another_unless_asked(tmp_path: Path) -> None:
    install = ["comfyui", "install", "--to", str(tmp_path)]
    done = CliRunner().invoke(app, install)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "referencenet")
    assert "Start ComfyUI anew" in done.stderr
    folder = tmp_path / "referencenet"
    assert [path.name for path in tmp_path.iterdir()] == ["referencenet"]
    assert {path.name for path in folder.iterdir()} == {"__init__.py", "pyproject.toml", "workflows"}
    (folder / "mine.txt").touch()
    again = CliRunner().invoke(app, install)
    assert again.exit_code == 2
    assert "is there already; --overwrite puts this one" in again.output
    assert (folder / "mine.txt").exists()
    assert CliRunner().invoke(app, [*install, "--overwrite"]).exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"__init__.py", "pyproject.toml", "workflows"}
    assert [path.name for path in tmp_path.iterdir()] == ["referencenet"]


def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["comfyui", "install", "--to", str(tmp_path / "nowhere")])
    assert done.exit_code == 2
    assert "give the custom_nodes folder of ComfyUI" in done.output
