"""`refnet methods`: the published systems and their true state here."""

from dataclasses import fields
from importlib import import_module
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from referencenet.methods.registry import METHODS, find_method

app = typer.Typer(add_completion=False)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show everything about this one.", show_default=False)] = None,
) -> None:
    """List the published systems: which work here, what they start from, their licences; or draw one.

    Try: `refnet methods magic_animate`
    """
    console = Console()
    if name is None:
        table = Table("name", "system", "state", "base", "link", "paper", pad_edge=False)
        for row in METHODS.values():
            state = f"[green]{row.state}[/]" if row.entry is not None else row.state
            table.add_row(row.name, row.title, state, row.base, row.link, row.paper or "")
        console.print(table)
        return
    row = find_method(name)
    table = Table(show_header=False, box=None)
    for field in fields(row):
        value = getattr(row, field.name)
        if value:
            table.add_row(f"[bold]{field.name}[/]", "\n".join(value) if isinstance(value, tuple) else str(value))
    console.print(table)
    if row.has_pipeline:
        console.print()
        spec = import_module("referencenet.methods.systems").entry_of(row).spec  # torch is not needed for the list
        text = import_module("referencenet.pipelines.drawing").drawing(spec)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
