"""Golden cases: proof that our outputs equal those of the published implementations."""

from referencenet.parity.cases import Case, CaseError, load_case
from referencenet.parity.report import as_json, exit_status, render
from referencenet.parity.seeded import fill, seeded, seeded_input
from referencenet.parity.verify import CaseResult, OutputResult, verify

__all__ = [
    "Case",
    "CaseError",
    "CaseResult",
    "OutputResult",
    "as_json",
    "exit_status",
    "fill",
    "load_case",
    "render",
    "seeded",
    "seeded_input",
    "verify",
]
