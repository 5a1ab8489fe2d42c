"""`refnet demo`: one sheet that shows what a reference does, with scores, and files to try the commands on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from referencenet.cli.console import progress_bar
from referencenet.cli.options import settings_of
from referencenet.later import later
from referencenet.media.files import check_place, written_whole
from referencenet.media.sheets import write_image
from referencenet.version import __version__

if TYPE_CHECKING:
    from referencenet.builtin import demo as drawing
    from referencenet.cli import quiet as hushing
    from referencenet.evaluation import showcase
    from referencenet.paperdoll import examples
else:
    drawing, hushing, showcase, examples = later(
        "referencenet.builtin.demo", "referencenet.cli.quiet", "referencenet.evaluation.showcase",
        "referencenet.paperdoll.examples",
    )  # fmt: skip

NEXT_TO_READ = Path(__file__).parents[1] / "methods" / "reference_only.py"

app = typer.Typer(add_completion=False)


@app.command("demo")
def demo_command(
    ctx: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for demo.png, demo.json, and the files to try.")
    ] = Path("demo"),
    characters: Annotated[int, typer.Option(min=1, help="Rows of the sheet.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Which characters, poses and noise.")] = 0,
) -> None:
    """Draw four characters, each with and without reference, and say how well they were recognised.

    Beside it a walking character, a talking head, a dressing row and more, each beside the truth: of every small
    system whose weights are built in.

    Beside the sheet lie hero.png, skeleton.png, a garment, a voice and more: what the other commands are tried on.

    Uses the built-in model; nothing is downloaded. The score is the similarity of a drawn person to the reference, as a
    small network sees it that was trained to tell people apart: 1 is the same person. No character was trained on.
    """
    check_place(out, folder=True)
    said = settings_of(ctx, "demo")
    files = examples.write_examples(out, seed, record=said)
    hushing.quiet()
    num_drawn = len(drawing.HEADINGS) - 2  # all columns but the reference and the truth
    with progress_bar("drawing", num_drawn) as (bar, task):
        columns: list[str] = []

        def begin(column: str) -> None:
            bar.update(task, completed=len(columns), description=f"drawing: {column}")
            columns.append(column)

        shown = drawing.demo(characters, seed, progress=begin)
        bar.update(task, completed=num_drawn, description="drawing")
    sheet = write_image(shown.sheet, out / "demo.png", said)
    document = {"scores": shown.scores, **said, "referencenet": __version__}
    with written_whole(out / "demo.json") as file:
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    shown_beside = [_written(part, out, seed, said) for part in showcase.shows()]
    table = Table("drawn with", "same person? (1 = yes)", pad_edge=False)
    for name in drawing.HEADINGS[1:]:
        table.add_row(name, f"{shown.scores[name]:.2f}")
    console = Console()
    console.print(table)
    console.print(f"The sheet is {sheet}", soft_wrap=True, highlight=False)
    for told in shown_beside:
        console.print(told, soft_wrap=True, highlight=False)
    console.print(f"To try the commands on: {', '.join(file.name for file in files)}", soft_wrap=True, highlight=False)
    console.print(f"How it works, in one file: {NEXT_TO_READ}", soft_wrap=True, highlight=False)


def _written(part: "showcase.Show", out: Path, seed: int, said: Mapping[str, Any]) -> str:
    """Write a part of the demonstration, with its progress; what was written where."""
    with progress_bar(part.file, part.cases) as (bar, task):
        path = showcase.write_show(part, out, seed, record=said, drawn=lambda number: bar.advance(task, number))
    return f"{path}: {part.told}"
