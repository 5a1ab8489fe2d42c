"""One job at a time for each model, in order; cancelled wherever it is."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from referencenet.ui.jobs import Cancelled, Desk, Job


class Slow:
    """Work that goes step by step as it is told."""

    def __init__(self) -> None:
        self.started, self.go_on = threading.Event(), threading.Event()

    def __call__(self, job: Job) -> str:
        self.started.set()
        assert self.go_on.wait(10)
        job.progress(1, 2)
        return "drawn"


@pytest.fixture
def desk() -> Any:
    desk = Desk(most=3)
    yield desk
    assert desk.close(10)


def test_jobs_of_a_model_wait_and_say_their_place_while_another_models_run(desk: Desk) -> None:
    first, other = Slow(), Slow()
    running = desk.submit("a", first)
    waiting = desk.submit("a", lambda job: job.key)
    beside = desk.submit("b", other)
    assert first.started.wait(10)
    assert other.started.wait(10)
    assert [desk.ahead_of(job) for job in (running, waiting, beside)] == [0, 1, 0]
    with pytest.raises(RuntimeError, match="3 jobs are waiting already"):
        desk.submit("c", lambda _: None)
    first.go_on.set()
    other.go_on.set()
    assert running.future.result(10) == "drawn"
    assert waiting.future.result(10) == "a"
    assert (running.step, running.steps) == (1, 2)


def test_a_running_job_ends_at_its_next_step_and_a_waiting_one_never_begins(desk: Desk) -> None:
    work, begun = Slow(), threading.Event()
    running, waiting = desk.submit("a", work), desk.submit("a", lambda _: begun.set())
    assert work.started.wait(10)
    waiting.cancel()
    running.cancel()
    work.go_on.set()
    with pytest.raises(Cancelled):
        running.future.result(10)
    assert waiting.future.cancelled()
    assert not begun.is_set()
    assert desk.submit("a", lambda _: "next").future.result(10) == "next"


def test_a_desk_that_closes_cancels_all_and_takes_no_more() -> None:
    desk, work = Desk(), Slow()
    running = desk.submit("a", work)
    assert work.started.wait(10)
    assert not desk.close(0.01)  # the step goes on
    work.go_on.set()
    assert desk.close(10)
    assert isinstance(running.future.exception(), Cancelled)
    with pytest.raises(RuntimeError, match="is being closed"):
        desk.submit("a", lambda _: None)
