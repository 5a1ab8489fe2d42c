"""A signal in the middle of a film, a bank, a conversion, a fetch: nothing is left half-written, and a film goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from films import picture, poses
from hostile.made import once
from referencenet.cli.app import INTERRUPTED
from referencenet.links.bank import ReferenceBank
from referencenet.media.films import Film, parts_of, write_film

WAIT = 120  # seconds that something may take, on a machine that does other things
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch", "referencenet.cli.animate", "referencenet.cli.convert"])


def _run(code: str, folder: Path) -> None:
    """Run code in this process, inside a folder; what it says goes to a file beside it."""
    os.environ |= {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "300"}
    os.chdir(folder)
    for number in (1, 2):
        os.dup2(os.open(folder.with_name(f"{folder.name}.said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    exec(compile(code, "code", "exec"), {})


def said(folder: Path) -> str:
    """What the processes said that ran there."""
    return folder.with_name(f"{folder.name}.said").read_text(encoding="utf-8")


def started(code: str, folder: Path) -> BaseProcess:
    """A process of its own that runs some code inside a folder."""
    process = FORKS.Process(target=_run, args=(code, folder))
    process.start()
    return process


def finished(code: str, folder: Path) -> None:
    """Run some code to its end."""
    process = started(code, folder)
    process.join(WAIT)
    assert process.exitcode == 0, said(folder)[-2000:]


def ended(process: BaseProcess, when: Callable[[], bool], how: signal.Signals) -> int:
    """End a process by a signal as soon as something is so; its exit status."""
    until = time.monotonic() + WAIT
    while not when() and process.is_alive():
        assert time.monotonic() < until, "it did not begin"
        time.sleep(0.002)
    assert process.is_alive(), "it was over before"
    assert process.pid is not None
    os.kill(process.pid, how)
    process.join(WAIT)
    code = process.exitcode
    process.kill()  # what a signal did not end would run for ever
    assert code is not None, f"it did not end by {how.name}"
    return code


def of_command(*typed: str) -> str:
    """Code that runs `refnet`."""
    return f"from referencenet.cli.app import app\napp({list(typed)!r}, prog_name='refnet')"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where things are made."""
    (tmp_path / "made").mkdir()
    return tmp_path / "made"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"), [("film.mp4", signal.SIGINT), ("frames", signal.SIGTERM), ("film.webm", signal.SIGKILL)]
)
def test_a_film_that_is_ended_is_not_there_and_goes_on_to_the_same_frames(
    name: str, how: signal.Signals, folder: Path
) -> None:
    picture(0).save(folder / "hero.png")
    write_film(poses(60), folder / "poses", 12)
    typed = ["animate", "-r", "hero.png", "-p", "poses", "--random-tiny", "--steps", "1", "--seed", "3"]
    out, parts = folder / name, parts_of(folder / name)
    first = started(of_command(*typed, "-o", name), folder)
    assert ended(first, (parts / "state.pt").is_file, how) != 0
    assert "Traceback" not in said(folder)
    assert not out.is_file(), "an unfinished film stands where the finished one will"
    assert not any(out.glob("*.png")), "unfinished frames stand where the finished ones will"
    assert not (folder / f"{name}.json").exists()
    finished(of_command(*typed, "-o", name, "--resume"), folder)
    finished(of_command(*typed, "-o", f"whole-{name}"), folder)
    again, whole = ([np.asarray(frame) for frame in Film(folder / place)] for place in (name, f"whole-{name}"))
    assert len(again) == 60
    assert np.array_equal(again, whole)
    assert [path for path in folder.glob(".*") if path.suffix != ".lock"] == [], "something is left"


BANK = """
import torch
from pathlib import Path
from referencenet.links.bank import ReferenceBank
bank = ReferenceBank(hidden={f"site.{i}": torch.full((1, 4096, 320), float(i)) for i in range(12)})
Path("begun").touch()
while True:
    bank.save("bank.safetensors")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGNALS)
def test_a_bank_that_is_being_saved_is_the_old_one_or_the_new_one(how: signal.Signals, folder: Path) -> None:
    saved = folder / "bank.safetensors"
    ended(started(BANK, folder), lambda: saved.is_file() and any(folder.glob(".bank.safetensors.*.partial")), how)
    assert len(ReferenceBank.load(saved).sites()) == 12
    if how is signal.SIGINT:  # what ends with an exception clears up behind itself
        assert not list(folder.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGNALS)
def test_a_conversion_that_is_ended_leaves_no_folder_and_can_be_run_again(how: signal.Signals, folder: Path) -> None:
    once("released")(folder)
    command = of_command("convert", "animate_anyone", "released", "--base", "released/base", "--out", "out")
    ended(started(command, folder), lambda: any(folder.glob(".out*")), how)
    assert not (folder / "out").exists()
    finished(command, folder)
    assert (folder / "out/model_index.json").is_file()
    assert not [path for path in folder.glob(".out*") if not path.name.endswith(".lock")]


FETCH = """
import hashlib, zipfile
from pathlib import Path
from referencenet.preprocess import model_files
names = [f"network-{i}.tflite" for i in range(60)]
content = bytes(2**20)
with zipfile.ZipFile("w.whl", "w") as archive:
    for name in names:
        archive.writestr(f"mediapipe/{name}", content)
model_files.SUMS.clear()
model_files.SUMS.update(dict.fromkeys(names, hashlib.sha256(content).hexdigest()))
while True:
    model_files.unpack("w.whl", "models")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGNALS)
def test_a_fetch_that_is_ended_leaves_whole_networks_only(how: signal.Signals, folder: Path) -> None:
    models = folder / "models"
    ended(started(FETCH, folder), lambda: sum(1 for _ in models.glob("network-*")) > 5, how)
    networks = list(models.glob("network-*"))
    assert networks
    assert {path.stat().st_size for path in networks} == {2**20}


@pytest.mark.slow
def test_an_interrupt_is_told_in_a_word(folder: Path) -> None:
    picture(0).save(folder / "hero.png")
    write_film(poses(24), folder / "poses", 12)
    typed = ["animate", "-r", "hero.png", "-p", "poses", "--random-tiny", "--steps", "2", "-o", "o.mp4"]
    parts = parts_of(folder / "o.mp4")
    assert ended(started(of_command(*typed), folder), parts.is_dir, signal.SIGINT) == INTERRUPTED
    assert "Traceback" not in said(folder)
    assert said(folder).splitlines()[-1].startswith("error: interrupted;")
