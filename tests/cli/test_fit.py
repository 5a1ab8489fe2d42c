"""`--fit` of the tasks: as if somebody had brought the pictures to the result's proportions by hand; and it is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from commands import told
from referencenet.cli.app import app
from referencenet.media.fitting import Fit, fitted
from referencenet.preprocess.faces import FACE_SIZE
from tiny import picture

GIVEN = (40, 64)  # width and height: of other proportions than every result here
TINY = ("--random-tiny", "--steps", "1", "--device", "cpu")
DONE = {"crop": "its middle is kept", "pad": "it gets a border", "stretch": "it is stretched"}
SQUARE, TALL = (32, 32), (32, 96)

TASKS: dict[str, tuple[str, tuple[int, int], dict[str, str]]] = {
    "turn": ("-r {hero} --views 1 --size 32 -o {out}", SQUARE, {"hero": "white"}),
    "face": ("words -f {hero} --size 32x32 -o {out}/000000.png", (FACE_SIZE, FACE_SIZE), {"hero": "black"}),
    "compose": (
        "--part shoes={hero} --mask shoes={mask} --pose {pose} --size 32x96 -o {out}/000000.png",
        TALL,
        {"hero": "white", "mask": "", "pose": "black"},
    ),
    "tryon": (
        "-p {hero} -g {garment} --mask {mask} --method catvton --size 32x96 -o {out}/000000.png",
        TALL,
        {"hero": "white", "garment": "white", "mask": ""},
    ),
    "generate": ("-r {hero} -p words --seed 0 --steps 1 --device cpu --size 32x96 -o {out}", TALL, {"hero": "white"}),
}
"""Command to what is typed, the size to which its pictures come, and the pictures with the colour of their border."""


def run(command: str, out: Path, files: dict[str, Path], *further: str) -> tuple[np.ndarray, Result]:
    typed = TASKS[command][0].format(**files, out=out).split()
    result = CliRunner().invoke(app, [command, *typed, *(TINY if command != "generate" else ()), *further])
    assert result.exit_code == 0, told(result)
    file = out / "0001/seed-0.png" if command == "generate" else out / "000000.png"
    with Image.open(file) as made:
        return np.asarray(made.convert("RGB")), result


@pytest.mark.parametrize("fit", ["crop", *(pytest.param(fit, marks=pytest.mark.slow) for fit in ("pad", "stretch"))])
@pytest.mark.parametrize("command", TASKS)
def test_it_draws_as_if_the_pictures_had_been_fitted_by_hand(command: str, fit: Fit, tmp_path: Path) -> None:
    _, size, grounds = TASKS[command]
    files: dict[str, Path] = {}
    by_hand: dict[str, Path] = {}
    for i, (name, ground) in enumerate(grounds.items()):
        files[name], by_hand[name] = tmp_path / f"{name}.png", tmp_path / f"{name}-fitted.png"
        shown = picture(i, GIVEN)
        if not ground:
            shown = Image.new("L", GIVEN)
            shown.paste(255, (8, 8, 32, 56))
        shown.save(files[name])
        fitted(shown, size, fit, ground or "black").save(by_hand[name])
    found, result = run(command, tmp_path / "found", files, "--fit", fit)
    expected, _ = run(command, tmp_path / "expected", by_hand)
    assert f"{GIVEN[0]} x {GIVEN[1]} pixels, the result {size[0]} x {size[1]}: {DONE[fit]}" in told(result)
    if fit != "stretch":  # which the systems do by themselves, each in its own way
        assert np.array_equal(found, expected)
    if fit == "crop":
        assert not np.array_equal(found, run(command, tmp_path / "plain", files)[0])
