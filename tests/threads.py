"""Calls in other threads, whose results and errors come back, and which no test waits for forever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 60.0  # seconds; more is a deadlock


class InThread:
    """A call that runs in a thread of its own."""

    def __init__(self, call: Callable[[], Any], name: str | None = None) -> None:
        self._call = call
        self._result: Any = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self.thread.is_alive()

    def result(self) -> Any:
        """What it returned; raises what it raised."""
        self.thread.join(PATIENCE)
        assert self.done, f"{self.thread.name} did not end"
        if self._error is not None:
            raise self._error
        return self._result


def in_thread(call: Callable[[], Any], name: str | None = None) -> InThread:
    """Begin a call in a thread of its own."""
    return InThread(call, name)


def all_of(calls: list[Callable[[], Any]]) -> list[Any]:
    """The results of calls that run at once, each in a thread."""
    return [each.result() for each in [in_thread(call) for call in calls]]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.001)
