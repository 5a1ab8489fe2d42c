"""`refnet face` as it is typed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from referencenet.cli.app import app
from referencenet.media.images import read_image
from tiny import picture


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    picture(1, (40, 56)).save(tmp_path / "face.png")
    return tmp_path / "face.png"


def run(*arguments: object):
    return CliRunner().invoke(app, ["face", *map(str, arguments)])


def test_tiny_weights_go_the_whole_way(photograph: Path, tmp_path: Path):
    out = tmp_path / "made" / "her.png"
    result = run("a knight", "-f", photograph, "-f", photograph, "--box", "0,0,30,40", "--box", "4,4,30,30",
                 "--place", "0.25,0.25,0.75,0.75", "--random-tiny", "--steps", 2, "--count", 2, "-o", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert [read_image(out.with_stem(f"her-{i}")).size for i in (1, 2)] == [(64, 64)] * 2
    assert out.with_stem("her-preview").is_file()
    settings = json.loads((out.parent / "her.png.json").read_text())
    assert settings["lambda_feat"] == 1.2
    assert settings["face_box"] == [0.25, 0.25, 0.75, 0.75]


def test_wrong_boxes_are_refused_in_one_line(photograph: Path, tmp_path: Path):
    common = ("a knight", "-f", photograph, "--random-tiny", "-o", tmp_path / "her.png")
    for further, words in (
        (("--box", "1,2,3"), "left,top,right,bottom"),
        (("--box", "0,0,9,9", "--box", "0,0,9,9"), "2 boxes were given for 1"),
        (("--box", "50,0,60,9"), "inside of it"),
    ):
        result = run(*common, *further)
        assert result.exit_code == 2
        assert words in " ".join(result.output.split())
