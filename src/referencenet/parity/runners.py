"""Which runner produces the outputs of which case: the table of its system's file in `parity/systems`, by kind."""

from importlib import import_module

from referencenet.methods.registry import METHODS
from referencenet.parity.cases import CaseError
from referencenet.parity.record import Runner


def runners() -> dict[tuple[str, str], Runner]:
    """All runners by (method, kind)."""
    return {
        (row.name, kind): runner
        for row in METHODS.values()
        if row.parity is not None
        for kind, runner in import_module(f"referencenet.parity.systems.{row.parity}").RUNNERS.items()
    }


def find_runner(method: str, kind: str) -> Runner:
    """Return the runner of a method's kind of case.

    Raises:
        CaseError: none is known for them.
    """
    row = METHODS.get(method)
    table = import_module(f"referencenet.parity.systems.{row.parity}").RUNNERS if row and row.parity else {}
    if kind not in table:
        known = ", ".join("/".join(pair) for pair in sorted(runners()))
        raise CaseError(f"no runner for {method}/{kind}; this version knows {known}")
    return table[kind]
