"""`refnet methods`: the published systems and their true state here."""

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from referencenet.later import later
from referencenet.methods.registry import METHODS, find_method

if TYPE_CHECKING:
    from referencenet.methods import systems
    from referencenet.pipelines import drawing
else:
    systems, drawing = later("referencenet.methods.systems", "referencenet.pipelines.drawing")

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
            table.add_row(f"[bold]{field.name}[/]", "\n".join(value) if isinstance(value, tuple) else str(value))
    console.print(table)
    if row.has_pipeline:
        console.print()
        text = drawing.drawing(systems.entry_of(row).spec)
        console.print(text, markup=False, highlight=False, soft_wrap=True)


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
