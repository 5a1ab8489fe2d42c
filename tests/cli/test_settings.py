"""The options of a run survive being written and read; what changed in between is told."""

import json

import pytest
from PIL import Image

from referencenet.cli.settings import Settings, pairs, parse_size, read_document, to_document


@pytest.fixture
def settings(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "pose.png")
    return Settings(
        prompt='a "knight"\nriding 馬',
        reference=(str(tmp_path / "a.png"),),
        control=(f"pose={tmp_path / 'pose.png'}",),
        controlnet=("pose=net",),
        seed=3,
    )


def test_written_settings_read_back_are_the_same(tmp_path, settings):
    file = tmp_path / "settings.json"
    file.write_text(to_document(settings, {"torch": "2"}, [{"file": "seed-3.png", "seed": 3}]), encoding="utf-8")
    options, changed = read_document(file)
    assert Settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}) == settings
    assert changed == []
    assert json.loads(file.read_text())["pictures"] == [{"file": "seed-3.png", "seed": 3}]


def test_pictures_that_changed_or_went_away_are_named(tmp_path, settings):
    file = tmp_path / "settings.json"
    file.write_text(to_document(settings, {}, []), encoding="utf-8")
    Image.new("RGB", (8, 8), "green").save(tmp_path / "a.png")
    (tmp_path / "pose.png").unlink()
    assert read_document(file)[1] == [str(tmp_path / "a.png"), str(tmp_path / "pose.png")]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": 3, "sha256": {}}', '{"settings": {}, "sha256": []'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json is (empty|not (JSON|a settings\.json).*refnet generate)"):
        read_document(tmp_path / "x.json")


def test_settings_of_another_version_are_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"settings": {"colour": 1}, "sha256": {}}')
    with pytest.raises(ValueError, match="unknown settings colour"):
        read_document(tmp_path / "x.json")


def test_pairs_are_read_and_others_refused():
    assert pairs(["pose=a=b.png", "depth=c"], "--control") == {"pose": "a=b.png", "depth": "c"}
    with pytest.raises(ValueError, match="--control was 'a.png'; it has the form KIND=PATH"):
        pairs(["a.png"], "--control")
    with pytest.raises(ValueError, match="names the kind 'pose' twice"):
        pairs(["pose=a", "pose=b"], "--control")


def test_sizes_are_read_and_others_refused():
    assert parse_size("512") == (512, 512)
    assert parse_size("512X768") == (512, 768)
    for wrong in ("", "0", "512x", "1x2x3", "-8", "big"):
        with pytest.raises(ValueError, match="--size was"):
            parse_size(wrong)
