"""Workers that draw one job at a time, each with the model of its last one: processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from referencenet.batch.commands import JobError, drawn
from referencenet.batch.jobs import Job
from referencenet.cli.loaded import LastModel
from referencenet.later import later

if TYPE_CHECKING:
    import torch
else:
    (torch,) = later("torch")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How drawing a job went.

    Attributes:
        seconds: It took, the loading of its model among them.
        notes: Of the command.
        reason: Why it failed; "" if it did not.
    """

    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    reason: str = ""


class Team(Protocol):
    """Workers, numbered from 0."""

    size: int

    def give(self, worker: int, job: Job, folder: Path) -> None:
        """Let a worker that has nothing to do draw a job into an empty folder."""
        ...

    def wait(self) -> Iterator[tuple[int, Outcome]]:
        """Wait for at least one worker; those that are done. One that died has a successor then."""
        ...

    def end(self) -> None:
        """Let all workers go, whatever they are doing."""
        ...


def attempt(job: Job, folder: Path, models: LastModel) -> Outcome:
    """Draw a job, with any failure as a reason."""
    start = perf_counter()
    try:
        notes = drawn(job.command, job.arguments, folder / job.result, models)
    except JobError as error:
        return Outcome(seconds=perf_counter() - start, reason=str(error))
    return Outcome(seconds=perf_counter() - start, notes=tuple(notes))


class Processes:
    """Processes of this machine; the CPU's cores are shared out, and of several CUDA devices each gets one in turn.

    Args:
        size: How many; None: one for each CUDA device, or one alone.
        most: More are not started.
    """

    def __init__(self, size: int | None = None, *, most: int) -> None:
        self.size = min(size or max(1, torch.cuda.device_count()), most)
        self._context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._begun = [self._begin(worker) for worker in range(self.size)]
        self._busy: dict[Connection, int] = {}

    def give(self, worker: int, job: Job, folder: Path) -> None:
        """Let a worker that has nothing to do draw a job into an empty folder."""
        _, connection = self._begun[worker]
        self._busy[connection] = worker
        try:
            connection.send((job, folder))
        except OSError:  # it died while it had nothing to do; `wait` finds that out
            pass

    def wait(self) -> Iterator[tuple[int, Outcome]]:
        """Wait for at least one worker; those that are done. One that died has a successor then."""
        for connection in wait(list(self._busy)):
            worker = self._busy.pop(connection)  # pyright: ignore[reportArgumentType] - these are what it was given
            try:
                outcome = connection.recv()  # pyright: ignore
            except (EOFError, OSError):
                outcome = Outcome(reason=self._death(worker))
                self._begun[worker] = self._begin(worker)
            yield worker, outcome

    def end(self) -> None:
        """Let all workers go, whatever they are doing."""
        for process, connection in self._begun:
            connection.close()
            process.terminate()
        for process, _ in self._begun:
            process.join()

    def _begin(self, worker: int) -> tuple[multiprocessing.process.BaseProcess, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, worker, self.size), daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends with the process
        return process, ours

    def _death(self, worker: int) -> str:
        process, connection = self._begun[worker]
        connection.close()
        process.join()
        status = process.exitcode or 0
        how = f"by signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"with status {status}"
        return f"its worker ended {how} while it was drawn; if memory was short, use fewer --workers."


def _serve(connection: Connection, worker: int, size: int) -> None:
    """Draw what comes, as one of so many workers, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for all of its processes: the parent ends this one
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // size))
    if torch.cuda.is_available():
        torch.cuda.set_device(worker % torch.cuda.device_count())
    models = LastModel()
    while True:
        try:
            job, folder = connection.recv()
            connection.send(attempt(job, folder, models))
        except (EOFError, OSError):
            return
