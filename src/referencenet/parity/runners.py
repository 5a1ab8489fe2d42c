"""Which runner produces the outputs of which case: one row per (method, kind) of case.json."""

from collections.abc import Callable, Mapping

from referencenet.parity.cases import Case, CaseError
from referencenet.parity.reference_runner import Produced, run_reference

Runner = Callable[[Case], Produced]

RUNNERS: Mapping[tuple[str, str], Runner] = {
    ("reference_only", "reference"): run_reference,
    ("reference_adain", "reference"): run_reference,
}


def find_runner(method: str, kind: str) -> Runner:
    """Return the runner of a method's kind of case.

    Raises:
        CaseError: none is known for them.
    """
    runner = RUNNERS.get((method, kind))
    if runner is None:
        known = ", ".join("/".join(row) for row in sorted(RUNNERS))
        raise CaseError(f"no runner for {method}/{kind}; this version knows {known}")
    return runner
