"""Shows the results of golden cases: a table with a summary line, a JSON document, an exit status."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import diffusers
import torch
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from referencenet.parity.verify import CaseResult, OutputResult
from referencenet.version import __version__

STYLES = {"passed": "green", "skipped": "yellow", "failed": "bold red", "unreadable": "bold magenta"}


def output_status(output: OutputResult) -> str:
    """Whether an output passed, failed, or was skipped: left out with a reason."""
    if not output.passed:
        return "failed"
    return "skipped" if output.relative_error is None else "passed"


def render(results: Sequence[CaseResult]) -> Group:
    """Render results for a rich console: one row per output, notes and errors in full, the summary as the last line."""
    table = Table("case", "output", "relative error", "tolerance", "result", pad_edge=False)
    for result in results:
        for i, output in enumerate(result.outputs):
            error = "" if output.relative_error is None else f"{output.relative_error:.2e}"
            name = escape(result.id) if i == 0 else ""
            table.add_row(name, escape(output.name), error, f"{output.tolerance:.0e}", mark(output_status(output)))
        if not result.outputs:
            table.add_row(escape(result.id), "", "", "", mark(result.status))
    notes = {f"{output.name}: {output.note}" for result in results for output in result.outputs if output.note}
    errors = [f"{result.status}: {result.path}\n  {result.error}" for result in results if result.error]
    return Group(table, *map(Text, [*sorted(notes), *errors, summary(results)]))


def mark(status: str) -> str:
    """The status in its colour."""
    return f"[{STYLES[status]}]{status}[/]"


def summary(results: Sequence[CaseResult]) -> str:
    """One line: how many cases passed, failed and could not be read, and the largest error."""
    counts = {status: sum(result.status == status for result in results) for status in ("failed", "unreadable")}
    passed = sum(result.status == "passed" for result in results)
    parts = [f"{passed} of {len(results)} cases passed"]
    parts += [f"{count} {status}" for status, count in counts.items() if count]
    errors = [
        output.relative_error for result in results for output in result.outputs if output.relative_error is not None
    ]
    if errors:
        parts.append(f"largest relative error {max(errors, key=lambda e: math.inf if math.isnan(e) else e):.2e}")
    return ", ".join(parts)


def exit_status(results: Sequence[CaseResult]) -> int:
    """0 if all passed, 1 if any failed, 2 if none failed but a case could not be read."""
    statuses = {result.status for result in results}
    return 1 if "failed" in statuses else 2 if "unreadable" in statuses else 0


def as_json(results: Sequence[CaseResult]) -> str:
    """The results and the versions as a JSON document; an error that is not a finite number becomes a string."""
    document = {
        "summary": summary(results),
        "exit_status": exit_status(results),
        "versions": {"referencenet": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
        "cases": [case_as_dict(result) for result in results],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def case_as_dict(result: CaseResult) -> dict[str, Any]:
    """One case's result in JSON's kinds."""
    outputs = []
    for output in result.outputs:
        error = output.relative_error
        finite = error if error is None or math.isfinite(error) else str(error)
        outputs.append({**asdict(output), "relative_error": finite, "status": output_status(output)})
    fields = ("id", "method", "kind", "status", "error")
    return {"path": str(result.path), **{name: getattr(result, name) for name in fields}, "outputs": outputs}
