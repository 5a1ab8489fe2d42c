"""`refnet tryon`: the whole path with tiny random weights, and what it says when something is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from referencenet.cli.app import app
from tiny import picture

SIZE = (32, 48)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    for i, name in enumerate(("person", "garment", "densepose")):
        picture(i, SIZE).save(tmp_path / f"{name}.png")
    Image.new("L", SIZE, 255).save(tmp_path / "mask.png")
    labels = np.full((48, 32), 4, dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "parsing.png")
    (tmp_path / "points.json").write_text(json.dumps([[0, 0]] * 18))
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def typed(files: dict[str, str], *further: str) -> tuple[int, str]:
    given = [f"--{name}={files[name]}" for name in ("person", "garment", "densepose")]
    out = str(Path(files["person"]).with_name("out.png"))
    result = CliRunner().invoke(app, ["tryon", *given, f"--out={out}", "--size=32x48", "--steps=1", *further])
    return result.exit_code, result.output


def test_a_person_is_dressed_beside_the_settings(files: dict[str, str]) -> None:
    status, _ = typed(files, f"--mask={files['mask']}", "--random-tiny", "--side-by-side", "--device=cpu")
    assert status == 0
    out = Path(files["person"]).with_name("out.png")
    with Image.open(out) as image:
        assert image.size == (3 * SIZE[0], SIZE[1])
    assert json.loads(out.with_name("out.png.json").read_text())["num_inference_steps"] == 1


def test_a_mask_is_made_from_parsing_and_points(files: dict[str, str]) -> None:
    made = (f"--parsing={files['parsing']}", f"--keypoints={files['points']}")
    status, _ = typed(files, *made, "--random-tiny", "--device=cpu")
    assert status == 0


def test_without_a_checkpoint_it_says_which_files_to_get(files: dict[str, str]) -> None:
    status, output = typed(files, f"--mask={files['mask']}")
    assert status == 2
    assert "yisol/IDM-VTON" in output
    assert "CC BY-NC-SA 4.0" in output


@pytest.mark.parametrize(
    ("further", "message"),
    [((), "give either --mask, or --parsing and --keypoints"), (("--parsing=x.png",), "give both")],
    ids=["neither", "half"],
)
def test_a_missing_mask_is_explained(files: dict[str, str], further: tuple[str, ...], message: str) -> None:
    status, output = typed(files, *further, "--random-tiny")
    assert status == 2
    assert message in " ".join(output.split())
