"""Whose turn it is: what a call or a block changes for its length belongs to one thread at a time.

A linked UNet computes something else for everybody who calls it, a scheduler keeps its place between steps. So whoever
changes such parts takes a turn at all of them at once; another thread is refused by name, or waits in the order in
which threads came. Within one thread turns may be taken inside each other: what must not meet there is refused where
it would, with a reason of its own. Nothing is left on the parts.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

Busy = Literal["refuse", "wait"]
"""What becomes of a thread that comes while another has its turn."""


class BusyError(RuntimeError):
    """Another thread has its turn at a part that is needed."""


@dataclass(eq=False)
class _Ticket:
    """A thread that has its turn, or waits for it.

    Attributes:
        parts: What it is needed for.
        thread: Whose it is.
        has_turn: Whether it waits no longer.
    """

    parts: Sequence[Any]
    thread: threading.Thread
    has_turn: bool = False

    def shared_with(self, other: _Ticket) -> Any:
        """The first part that another ticket is for as well; None: there is none."""
        return next((part for part in self.parts if any(part is each for each in other.parts)), None)


_changed = threading.Condition()
_tickets: list[_Ticket] = []  # in the order in which they came; empty while nobody calls


def check_busy(busy: Any) -> None:
    """See that an option is one.

    Raises:
        ValueError: If it is not.
    """
    if busy not in ("refuse", "wait"):
        raise ValueError(f"busy is {busy!r}; expected 'refuse' or 'wait': what happens while another thread is at it.")


@contextmanager
def turn(parts: Sequence[Any], busy: Busy) -> Generator[None]:
    """Inside, parts are this thread's.

    Args:
        parts: Whatever the block changes: networks, a scheduler, a pipeline; told apart by identity.
        busy: `"refuse"` raises while another thread has its turn at one of them, `"wait"` waits for it.

    Raises:
        ValueError: If `busy` is neither.
        BusyError: If another thread has its turn, or waiting would never end because that thread waits for this one.
    """
    check_busy(busy)
    mine = _Ticket([part for part in parts if part is not None], threading.current_thread())
    with _changed:
        _tickets.append(mine)
        try:
            _check(mine, busy)
            while _ahead(mine):
                _changed.wait()
        except BaseException:
            _leave(mine)
            raise
        mine.has_turn = True
    try:
        yield
    finally:
        with _changed:
            _leave(mine)


def waiting_threads() -> set[int | None]:
    """Identities of the threads that wait for a turn."""
    with _changed:
        return {ticket.thread.ident for ticket in _tickets if not ticket.has_turn}


def _check(mine: _Ticket, busy: Busy) -> None:
    """Refuse where that is asked for, or where waiting would never end."""
    ahead = _ahead(mine)
    if ahead and busy == "refuse":
        part, holder = ahead[0].shared_with(mine), ahead[0].thread
        raise BusyError(
            f"the {type(part).__name__} is in use by the thread {holder.name!r}, and was asked for in "
            f"{mine.thread.name!r}; what it gives meanwhile would be another call's. Wait for it with busy='wait', or "
            "give each thread a pipeline of its own: replica(pipe) shares the weights."
        )
    if _waits_for(mine, mine.thread):
        raise BusyError(
            f"the thread {mine.thread.name!r} would wait for {ahead[0].thread.name!r}, which waits for it; take turns "
            "at several pipelines in the same order in every thread."
        )


def _ahead(mine: _Ticket) -> list[_Ticket]:
    """Tickets of other threads that come first, by order of arrival; but none that waits for this very thread."""
    held = [ticket for ticket in _tickets if ticket.has_turn and ticket.thread is mine.thread]
    return [
        other
        for other in _tickets[: _tickets.index(mine)]
        if other.thread is not mine.thread
        and other.shared_with(mine) is not None
        and (other.has_turn or not any(other.shared_with(each) is not None for each in held))
    ]


def _waits_for(ticket: _Ticket, thread: threading.Thread) -> bool:
    """Whether a ticket's wait ends only when a thread goes on."""
    return any(
        other.thread is thread
        or any(_waits_for(each, thread) for each in _tickets if each.thread is other.thread and not each.has_turn)
        for other in _ahead(ticket)
    )


def _leave(mine: _Ticket) -> None:
    _tickets.remove(mine)
    _changed.notify_all()
