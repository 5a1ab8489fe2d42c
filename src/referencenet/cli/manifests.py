"""`refnet verify --manifest FILES`: does every key of the published files have its place, at full size?"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.manifest import ManifestResult, read_manifest, verify_manifest
from referencenet.media.files import written_whole
from referencenet.methods.systems import find_by_manifest, published_sets


def run_manifests(paths: Sequence[Path], json_file: Path | None = None, console: Console | None = None) -> int:
    """Check key lists and print a table; the last line is a summary.

    Args:
        paths: Key lists, `SYSTEM-FILE.json.gz`.
        json_file: Also write the results there.
        console: Where to print; the standard output if None.

    Returns:
        Exit status: 0 all fit, 1 one does not fit, 2 none failed but one could not be read or has no row.
    """
    results = [result for path in paths for result in check(path)]
    console = console or Console()
    table = Table("manifest", "component", "keys", "ignored", "filled", "result", pad_edge=False)
    for result in results:
        status = (
            "[green]passed[/]"
            if result.passed
            else "[bold red]failed[/]"
            if result.is_readable
            else "[magenta]unreadable[/]"
        )
        counts = (result.num_keys, result.num_ignored, result.num_filled)
        table.add_row(escape(result.name), escape(result.component), *map(str, counts), status)
    console.print(table)
    for result in results:
        if result.error is not None:
            console.print(f"{result.name}: {result.error}", markup=False, highlight=False, soft_wrap=True)
    console.print(summary(results), markup=False, highlight=False)
    if json_file is not None:
        document = {
            "summary": summary(results),
            "exit_status": exit_status(results),
            "manifests": [{**asdict(result), "passed": result.passed} for result in results],
        }
        with written_whole(json_file) as file:
            file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return exit_status(results)


def check(path: Path) -> list[ManifestResult]:
    """Check one key list for every component that its file fills; what is wrong with it stands in the results."""
    try:
        manifest = read_manifest(path)
    except CheckpointError as error:
        return [ManifestResult(name=path.name, error=str(error), is_readable=False)]
    rows = find_by_manifest(manifest.name)
    if not rows:
        known = ", ".join(
            sorted(
                file.manifest for published in published_sets().values() for file in published.files if file.manifest
            )
        )
        error = f"no published file is known by this name; there are {known}"
        return [ManifestResult(name=manifest.name, num_keys=len(manifest.keys), error=error, is_readable=False)]
    return [verify_manifest(manifest, published, file) for published, file in rows]


def summary(results: Sequence[ManifestResult]) -> str:
    """One line: how many fit."""
    passed = sum(result.passed for result in results)
    keys = sum(result.num_keys for result in results if result.passed)
    unreadable = sum(not result.is_readable for result in results)
    failed = len(results) - passed - unreadable
    parts = [f"{passed} of {len(results)} manifests passed, {keys} keys"]
    parts += [f"{failed} failed"] * bool(failed) + [f"{unreadable} unreadable"] * bool(unreadable)
    return ", ".join(parts)


def exit_status(results: Sequence[ManifestResult]) -> int:
    """0 if all fit, 1 if one does not, 2 if none failed but one could not be read."""
    if any(not result.passed and result.is_readable for result in results):
        return 1
    return 2 if any(not result.passed for result in results) else 0
