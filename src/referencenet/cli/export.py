"""`refnet export`: what a run has trained, as an ordinary pipeline folder."""

from pathlib import Path
from typing import Annotated

import typer

from referencenet.cli.console import say
from referencenet.training.run import export as export_run

app = typer.Typer(add_completion=False)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run of `refnet train`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; new or empty.")],
    raw: Annotated[bool, typer.Option("--raw", help="The weights themselves, not their moving average.")] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Files with the published names, which `refnet convert` reads.")
    ] = False,
    lora: Annotated[
        bool, typer.Option("--lora", help="Low-rank weights by themselves, which `load_lora_weights` reads.")
    ] = False,
) -> None:
    """Write what a run has trained so that `from_pretrained` and the commands' --checkpoint read it.

    Low-rank weights are merged into those beside which they were trained, unless --lora is given.
    """
    if published and lora:
        raise ValueError("--published and --lora were given; low-rank weights have no published names: give one.")
    folder = export_run(run, out, raw=raw, form="published" if published else "lora" if lora else "pipeline")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    say(f"{size:.1f} MB in {folder}")
