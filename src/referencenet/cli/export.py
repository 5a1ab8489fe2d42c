"""`refnet export`: what a run has trained, as an ordinary pipeline folder."""

from pathlib import Path
from typing import Annotated

import typer

from referencenet.builtin.starts import STARTS
from referencenet.cli.console import say
from referencenet.training.run import export as export_run

app = typer.Typer(add_completion=False)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run of `refnet train`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; new or empty.")],
    raw: Annotated[bool, typer.Option("--raw", help="The weights themselves, not their moving average.")] = False,
    trained: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE", help="Only what this stage has trained, as the package ships it. May be given again."
        ),
    ] = None,
) -> None:
    """Write what a run has trained so that `from_pretrained` and the commands' --checkpoint read it.

    Low-rank weights are merged into those beside which they were trained.
    """
    folder = export_run(run, out, raw=raw, trained=trained or (), starts=STARTS)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    say(f"{size:.1f} MB in {folder}")
