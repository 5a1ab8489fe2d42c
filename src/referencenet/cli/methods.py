"""`refnet methods`: the published systems and their true state here."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from referencenet.later import later
from referencenet.methods.registry import METHODS, find_method

if TYPE_CHECKING:
    from referencenet.builtin import start
    from referencenet.cli import run
    from referencenet.methods import systems
    from referencenet.pipelines import drawing
else:
    start, run, systems, drawing = later(
        "referencenet.builtin.start", "referencenet.cli.run", "referencenet.methods.systems",
        "referencenet.pipelines.drawing",
    )  # fmt: skip

WIDE = 120
"""Columns of a terminal in which what a system starts from has room, too."""

app = typer.Typer(add_completion=False)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show everything about this one.", show_default=False)] = None,
) -> None:
    """List the published systems: which work here, and by which command; or show one whole.

    Try: `refnet methods magic_animate`
    """
    console = Console()
    if name is None:
        console.print(listed(console.width))
        return
    row = find_method(name)
    table = Table(show_header=False, box=None)
    for field in fields(row):
        value = getattr(row, field.name)
        if value:
            table.add_row(f"[bold]{field.name.replace('_', ' ')}[/]", in_words(value))
    if row.has_pipeline and start.is_shipped(row.name):
        table.add_row("[bold]built in[/]", "small weights for drawn figures, used where no --checkpoint is given")
    console.print(table)
    if row.has_pipeline:
        console.print()
        text = drawing.drawing(systems.entry_of(row).spec)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        console.print()
        console.print(run.files_needed(systems.entry_of(row).published), soft_wrap=True, highlight=False)


def in_words(value: object) -> str:
    """A field of a row as people read it: no brackets, no quotes."""
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {in_words(each)}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple) else "yes" if value is True else str(value)


def listed(width: int) -> Table:
    """All systems in a table that shows whole names; a terminal of fewer columns sees less of the rest."""
    table = Table(pad_edge=False)
    for heading in ("name", "system", "command", "paper"):
        table.add_column(heading, no_wrap=True)
    is_wide = width >= WIDE
    for heading in ("state", *(("base", "link") if is_wide else ())):
        table.add_column(heading)
    for row in METHODS.values():
        state = f"[green]{row.state}[/]" if row.entry is not None else row.state
        rest = (row.base, row.link) if is_wide else ()
        table.add_row(row.name, row.title, row.task or "", row.paper or "", state, *rest)
    return table
