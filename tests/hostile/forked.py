"""Runs cases one by one, each in a forked process of its own that may take so much time and memory and no more.

The libraries are imported once. `Forks` is the tests' end; this file run as a program is the other one.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from hostile.case import BYTES, SECONDS, Answer, Case
from referencenet.cli.app import COMMANDS, MODULES, app
from referencenet.cli.console import tell_error

TESTS = Path(__file__).parents[1]
SAID = "said.out", "said.err"


class Forks:
    """A process that runs cases for the tests."""

    def __init__(self) -> None:
        paths = [str(TESTS), str(TESTS.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        further = {
            "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "400", "NO_COLOR": "1",
            "HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hostile.forked"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=TESTS, env=os.environ | further,
        )  # fmt: skip

    def run(self, table: str, name: str, folder: Path) -> Answer:
        """Run a case of a table inside a folder that holds its files; what it says goes to a folder beside it."""
        said = folder.with_name(f"{folder.name}-said")
        said.mkdir()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([table, name, str(folder), str(said)]) + "\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        out, err = ((said / file).read_text(encoding="utf-8", errors="replace") for file in SAID)
        return Answer(**told, out=out, err=err)

    def close(self) -> None:
        """End the process."""
        with self.process as process:
            assert process.stdin is not None
            process.stdin.close()


def main() -> None:
    """Answer one line for each line, until there is no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for command in COMMANDS:
        importlib.import_module(f"referencenet.cli.{MODULES.get(command, command)}")
    loaded = {name: importlib.import_module(f"hostile.{name}") for name in tables()}
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        table, name, folder, said = json.loads(line)
        answers.write(json.dumps(_forked(loaded[table].TABLE.cases[name], Path(folder), Path(said))) + "\n")
        answers.flush()


def tables() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("on_*.py"))


def _forked(case: Case, folder: Path, said: Path) -> dict[str, Any]:
    begin = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _limited(case, folder, said)
    ended = os.pidfd_open(pid)
    if not select.select([ended], [], [], SECONDS)[0]:
        os.kill(pid, signal.SIGKILL)
    _, status, used = os.wait4(pid, 0)
    os.close(ended)
    took = time.monotonic() - begin
    return {"status": os.waitstatus_to_exitcode(status), "seconds": took, "peak": used.ru_maxrss * 1024}


def _limited(case: Case, folder: Path, said: Path) -> None:
    """Run a case in this process, and end it."""
    status = 70
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
        os.chdir(folder)
        for number, file in enumerate(SAID, start=1):
            opened = os.open(said / file, os.O_WRONLY | os.O_CREAT)
            os.dup2(opened, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        status = _run(case)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(case: Case) -> int:
    """Run what a case does; the exit status. An error of `call` is told as the command line tells it."""
    found = None
    if case.call is None:
        try:
            app(list(case.typed), prog_name="refnet")
        except SystemExit as leaving:
            if leaving.code:
                return int(leaving.code)
    else:
        try:
            found = case.call()
        except Exception as error:
            return tell_error(error)
    if case.gives is not None:
        case.gives(found)
    return 0


if __name__ == "__main__":
    main()
