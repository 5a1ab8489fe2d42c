"""`refnet verify CASE_DIR...`: are our outputs those of the published implementations?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from referencenet.cli.checks import check_given
from referencenet.later import later
from referencenet.media.files import written_whole

if TYPE_CHECKING:
    import referencenet.parity.verify as checking
    from referencenet.cli import manifests
    from referencenet.parity import report
else:
    manifests, report, checking = later(
        "referencenet.cli.manifests", "referencenet.parity.report", "referencenet.parity.verify"
    )

app = typer.Typer(add_completion=False)


@app.command("verify")
def verify_command(
    ctx: typer.Context,
    cases: Annotated[
        list[Path],
        typer.Argument(metavar="CASE...", help="Golden case folders, each with case.json and outputs.safetensors."),
    ],
    manifest: Annotated[
        bool, typer.Option("--manifest", help="The paths are full-size key lists, SYSTEM-FILE.json.gz: check key maps.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results there.", show_default=False)
    ] = None,
) -> None:
    """Run golden cases: recorded outputs of the published implementations, compared with ours.

    Prints each output's relative error. Exit status 1 if a case fails, 2 if none fails but one cannot be read.
    """
    check_given(ctx)
    raise typer.Exit(manifests.run_manifests(cases, json_file) if manifest else run_verify(cases, json_file))


def run_verify(paths: Sequence[Path], json_file: Path | None = None, console: Console | None = None) -> int:
    """Run golden case folders and print a table of their outputs with relative errors; the last line is a summary.

    Args:
        paths: case folders, each with case.json and outputs.safetensors.
        json_file: also write the results there.
        console: where to print; the standard output if None.

    Returns:
        Exit status: 0 all passed, 1 a case failed, 2 none failed but a case could not be read.
    """
    results = checking.verify(paths)
    (console or Console()).print(report.render(results))
    if json_file is not None:
        with written_whole(json_file) as file:
            file.write_text(report.as_json(results), encoding="utf-8")
    return report.exit_status(results)
