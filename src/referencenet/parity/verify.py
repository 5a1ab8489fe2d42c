"""Runs golden cases and compares: relative error ||ours - theirs|| / ||theirs|| of every output of every case."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from referencenet.parity.cases import Case, CaseError, listed, load_case, read_content
from referencenet.parity.record import Produced
from referencenet.parity.runners import find_runner


@dataclass(frozen=True, kw_only=True)
class OutputResult:
    """One output's comparison; `relative_error` is None if the output was left out, for the reason in `note`."""

    name: str
    relative_error: float | None
    tolerance: float
    passed: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One case's comparison; `status` is "unreadable" if the case, not the mathematics, is at fault."""

    path: Path
    id: str
    method: str
    kind: str
    status: Literal["passed", "failed", "unreadable"]
    outputs: Sequence[OutputResult] = ()
    error: str | None = None


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """||ours - theirs|| / ||theirs|| in float64, for two tensors of one shape; 0 if both are all zero."""
    difference = torch.linalg.vector_norm(ours.double() - theirs.double()).item()
    norm = torch.linalg.vector_norm(theirs.double()).item()
    if norm == 0:
        return 0.0 if difference == 0 else float("inf")
    return difference / norm


def compare(case: Case, produced: Produced) -> list[OutputResult]:
    """Compare what a runner produced with every output that the case expects.

    Raises:
        CaseError: the case expects an output that the runner neither produces nor leaves out with a reason.
    """
    unknown = case.expected.keys() - produced.outputs.keys() - produced.notes.keys()
    if unknown:
        raise CaseError(f"{case.id}: its kind has no output {listed(unknown)}; it has {listed(produced.outputs)}")
    return [compare_output(case, produced, name) for name in case.expected]


def compare_output(case: Case, produced: Produced, name: str) -> OutputResult:
    """Compare one output; a wrong shape and values that are not finite fail."""
    note, ours, theirs = produced.notes.get(name, ""), produced.outputs.get(name), case.expected[name]
    if ours is None:
        return OutputResult(name=name, relative_error=None, tolerance=case.tolerance, passed=True, note=note)
    if ours.shape != theirs.shape:
        note = f"shape {tuple(ours.shape)}, expected {tuple(theirs.shape)}"
        return OutputResult(name=name, relative_error=None, tolerance=case.tolerance, passed=False, note=note)
    error = relative_error(ours, theirs)
    passed = error <= case.tolerance  # false for NaN
    return OutputResult(name=name, relative_error=error, tolerance=case.tolerance, passed=passed, note=note)


def verify_case(path: str | Path) -> CaseResult:
    """Run one case folder; never raises for what is wrong with the case or the result, but says so in the result."""
    path = Path(path)
    identity: dict[str, Any] = {"path": path, "id": path.name, "method": "", "kind": ""}
    try:
        content = read_content(path)
        identity |= {key: content[key] for key in ("id", "method", "kind")}
        runner = find_runner(content["method"], content["kind"])
        case = load_case(path)
        outputs = compare(case, runner(case))
    except CaseError as error:
        return CaseResult(**identity, status="unreadable", error=str(error))
    except Exception as error:  # whatever the mechanism raises is a failed case, and the other cases still run
        return CaseResult(**identity, status="failed", error=f"{type(error).__name__}: {error}")
    status = "passed" if all(output.passed for output in outputs) else "failed"
    return CaseResult(**identity, status=status, outputs=outputs)


def verify(paths: Sequence[str | Path]) -> list[CaseResult]:
    """Run golden case folders.

    Args:
        paths: folders, each holding case.json and outputs.safetensors.

    Returns:
        One result per path, in the given order. Cases that cannot be read do not keep the others from running.
    """
    return [verify_case(path) for path in paths]
