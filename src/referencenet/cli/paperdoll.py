"""`refnet paperdoll`: data-set folders of drawn characters, with exact annotations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from referencenet.cli.console import progress_bar, say
from referencenet.later import later
from referencenet.media.files import check_place

if TYPE_CHECKING:
    from referencenet.paperdoll import layouts
else:
    (layouts,) = later("referencenet.paperdoll.layouts")

Layout = Literal["viton-hd", "ubc", "tiktok", "hdtf", "flat"]

app = typer.Typer(add_completion=False)


@app.command()
def paperdoll(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; new or empty.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Pictures, pairs or films.")] = 100,
    layout: Annotated[Layout, typer.Option(help="Which loader the data is for.")] = "flat",
    size: Annotated[int, typer.Option(min=64, max=512, help="Height of a picture in pixels.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same files.")] = 0,
) -> None:
    """Write a data set of drawn characters, in a layout that the field's loaders read.

    flat: single pictures with all annotations. viton-hd: people and garments to try on. ubc, tiktok: films of dancing
    people. hdtf: talking heads with sound.
    """
    check_place(out, folder=True)
    with progress_bar(layout, count) as (bar, task):
        folder = layouts.write_dataset(
            out, count, layout, size=size, seed=seed, progress=lambda done, _: bar.update(task, completed=done)
        )
    say(f"{count} of {layout} in {folder}")
