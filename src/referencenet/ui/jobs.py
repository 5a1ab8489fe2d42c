"""Jobs: one at a time for each model, in the order in which they came; each can be cancelled at every step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

Work = Callable[["Job"], Any]

_current: ContextVar[Job | None] = ContextVar("job", default=None)


class Cancelled(Exception):
    """A job was ended before it was done."""


@dataclass(eq=False)
class Job:
    """One thing to draw.

    Attributes:
        key: Of the model; jobs with the same key wait for each other.
        step: Denoising steps that are done.
        steps: Of how many; 0 while that is not known.
        notes: What was lost or changed on the way, in sentences.
        record: What decides its result, to stand in pictures.
    """

    key: Hashable
    future: Future[Any] = field(default_factory=Future[Any])
    step: int = 0
    steps: int = 0
    notes: list[str] = field(default_factory=list[str])
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])
    _ended: threading.Event = field(default_factory=threading.Event)

    def progress(self, step: int, steps: int) -> None:
        """Say how far it is; to be called at every step.

        Raises:
            Cancelled: If it is to end.
        """
        self.step, self.steps = step, steps
        self.check()

    def check(self) -> None:
        """Go on, or not.

        Raises:
            Cancelled: If it is to end.
        """
        if self._ended.is_set():
            raise Cancelled("cancelled; nothing was kept.")

    def cancel(self) -> None:
        """End it: at once if it waits, else at its next step."""
        self._ended.set()
        self.future.cancel()

    @property
    def runs(self) -> bool:
        """Whether it is being drawn."""
        return self.future.running()


def told(sentence: str) -> bool:
    """Note a sentence at the job of this thread; False: this thread has none."""
    job = _current.get()
    if job is not None and sentence not in job.notes:
        job.notes.append(sentence)
    return job is not None


class Desk:
    """Takes jobs, and has a thread for each model.

    Args:
        most: Jobs that may wait or run at the same moment.
    """

    def __init__(self, most: int = 64) -> None:
        self.most = most
        self._lines: dict[Hashable, ThreadPoolExecutor] = {}
        self._jobs: list[Job] = []  # in the order in which they came
        self._lock = threading.Lock()
        self._is_closed = False

    def submit(self, key: Hashable, work: Work) -> Job:
        """Put a job at the end of its model's line.

        Args:
            key: Of the model.
            work: Called with the job, in the model's thread.

        Raises:
            RuntimeError: If too many wait, or the page is being closed.
        """
        job = Job(key)
        with self._lock:
            if self._is_closed:
                raise RuntimeError("refnet ui is being closed; start it again.")
            self._jobs = [other for other in self._jobs if not other.future.done()]
            if len(self._jobs) >= self.most:
                raise RuntimeError(f"{self.most} jobs are waiting already; try again in a while.")
            if key not in self._lines:
                self._lines[key] = ThreadPoolExecutor(1, thread_name_prefix="refnet-ui")
            job.future = self._lines[key].submit(_run, job, work)
            self._jobs.append(job)
        return job

    def ahead_of(self, job: Job) -> int:
        """How many jobs of the same model are before a job, the one that is being drawn among them."""
        with self._lock:
            before = self._jobs[: self._jobs.index(job)] if job in self._jobs else []
            return sum(other.key == job.key and not other.future.done() for other in before)

    def is_busy(self, key: Hashable) -> bool:
        """Whether jobs of a model wait or run."""
        with self._lock:
            return any(job.key == key and not job.future.done() for job in self._jobs)

    def close(self, patience: float) -> bool:
        """Take no more jobs, cancel those that are there and wait for their end.

        Args:
            patience: Seconds.

        Returns:
            Whether all have ended.
        """
        with self._lock:
            self._is_closed = True
            jobs, lines = [*self._jobs], [*self._lines.values()]
        for job in jobs:
            job.cancel()
        for line in lines:
            line.shutdown(wait=False)
        return not wait([job.future for job in jobs], timeout=patience).not_done


def _run(job: Job, work: Work) -> Any:
    token = _current.set(job)
    try:
        job.check()
        return work(job)
    finally:
        _current.reset(token)
