"""What a hostile input is: how its files are made, what is done with them, and the answer that is owed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 20
BYTES = 2 * 2**30
"""What one input may take, of time and of memory, the libraries themselves (about 0.5 GB) counted."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One hostile input.

    Attributes:
        name: Of the case.
        typed: Arguments of `refnet`, run inside the folder of the case; or nothing, and `call`.
        call: A public function on the folder of the case.
        make: Writes the input's files into the folder of the case.
        says: Regular expression found in the one line of the answer; empty: the input is taken.
        gives: Checks the result of an input that is taken: of `call` what it returns, else nothing, in its folder.
        slow: Whether it takes more than a moment.
    """

    name: str
    typed: tuple[str, ...] = ()
    call: Callable[[], Any] | None = None
    make: tuple[Callable[[Path], Any], ...] = ()
    says: str = ""
    gives: Callable[[Any], None] | None = None
    slow: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a case.

    Attributes:
        status: The exit status; negative: the signal that ended it.
        out: What it said on the standard output.
        err: What it said on the error output.
        seconds: It took.
        peak: The most memory that it held, in bytes.
    """

    status: int
    out: str
    err: str
    seconds: float
    peak: int


@dataclass
class Table:
    """Cases of one kind, by name."""

    kind: str
    cases: dict[str, Case] = field(default_factory=dict[str, Case])

    def add(self, name: str, *make: Callable[[Path], Any], **rest: Any) -> None:
        """Add a case; its name is unique. What goes through a command is slow, if nothing else is said."""
        name = f"{self.kind}: {name}"
        assert name not in self.cases, f"two cases are called {name}"
        self.cases[name] = Case(name=name, make=make, **({"slow": "typed" in rest} | rest))
