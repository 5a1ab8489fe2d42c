"""Turns: one thread at a time, in the order in which they came, and no wait that cannot end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from referencenet import BusyError
from referencenet.links import turns
from referencenet.links.turns import turn
from threads import in_thread, wait_until


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert turns._tickets == []


def waiting(count: int) -> Callable[[], bool]:
    return lambda: len(turns.waiting_threads()) == count


def test_another_thread_is_refused_by_name_and_comes_when_the_turn_is_over():
    part = object()
    with turn([part], "refuse"):
        other = in_thread(lambda: turn([part], "refuse").__enter__(), "request 2")
        with pytest.raises(BusyError, match=r"object is in use by the thread 'MainThread'.*'request 2'.*busy='wait'"):
            other.result()
    with turn([part], "refuse"):
        pass


def test_those_who_wait_come_in_their_order():
    part, order = object(), []

    def come(number: int) -> None:
        with turn([part], "wait"):
            order.append(number)

    with turn([part], "refuse"):
        calls = []
        for number in range(4):
            calls.append(in_thread(lambda number=number: come(number)))
            wait_until(waiting(number + 1))
        assert order == []
    for call in calls:
        call.result()
    assert order == [0, 1, 2, 3]


def test_several_parts_are_taken_together_and_others_are_free():
    first, second, third = object(), object(), object()

    def take(parts: list[Any]) -> bool:
        with turn(parts, "wait"):
            return True

    with turn([first, second], "refuse"):
        both = in_thread(lambda: take([second, third]))
        wait_until(waiting(1))
        with pytest.raises(BusyError):
            in_thread(lambda: turn([third], "refuse").__enter__()).result()  # who waits stands before who comes
        assert in_thread(lambda: take([object()])).result()
    assert both.result()


def test_a_thread_takes_turns_inside_its_own_also_before_others_who_wait():
    part = object()

    def take() -> bool:
        with turn([part], "wait"):
            return True

    with turn([part], "wait"):
        other = in_thread(take)
        wait_until(waiting(1))
        with turn([part], "wait"), turn([part], "refuse"):
            assert not other.done
    assert other.result()


def test_a_circle_of_waiting_is_refused():
    first, second = object(), object()
    has_second = threading.Event()

    def other() -> bool:
        with turn([second], "wait"):
            has_second.set()
            with turn([first], "wait"):
                return True

    with turn([first], "wait"):
        call = in_thread(other, "other")
        has_second.wait(5)
        wait_until(waiting(1))
        with pytest.raises(BusyError, match="'MainThread' would wait for 'other', which waits for it"):
            turn([second], "wait").__enter__()
    assert call.result()


def test_who_is_interrupted_while_waiting_waits_no_longer(monkeypatch: pytest.MonkeyPatch):
    part = object()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with turn([part], "refuse"):
        monkeypatch.setattr(turns._changed, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            in_thread(lambda: turn([part], "wait").__enter__()).result()
        monkeypatch.undo()
    with turn([part], "refuse"):
        pass


def test_a_wrong_option_teaches():
    with pytest.raises(ValueError, match="busy is 'queue'; expected 'refuse' or 'wait'"):
        turn([], "queue").__enter__()  # pyright: ignore[reportArgumentType]
