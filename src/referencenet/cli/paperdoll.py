"""`refnet paperdoll`: data-set folders of drawn characters, with exact annotations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from referencenet.bases.names import BUILTIN
from referencenet.cli.checks import check_speech
from referencenet.cli.console import progress_bar, say
from referencenet.later import later
from referencenet.media.files import check_place

if TYPE_CHECKING:
    from referencenet.builtin import heads
    from referencenet.paperdoll import layouts
else:
    heads, layouts = later("referencenet.builtin.heads", "referencenet.paperdoll.layouts")

Layout = Literal[
    "viton-hd", "stable-garment", "ubc", "tiktok", "hdtf", "aniportrait", "parts2whole", "identities", "views", "flat"
]

app = typer.Typer(add_completion=False)


@app.command()
def paperdoll(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; new or empty.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Pictures, pairs, films or people.")] = 100,
    layout: Annotated[Layout, typer.Option(help="Which loader the data is for.")] = "flat",
    size: Annotated[int, typer.Option(min=64, max=512, help="Height of a picture in pixels.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same files.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 2,
    speech: Annotated[
        str | None,
        typer.Option(metavar="builtin|FOLDER", show_default="no features",
                     help="hdtf: a wav2vec 2.0 model, by which features of the sound are written; builtin is the small "
                     "one of the built-in weights."),
    ] = None,
    sway: Annotated[
        float, typer.Option(min=0, max=1, help="hdtf, aniportrait: how far heads move; at 0 they keep still.")
    ] = 1.0,
) -> None:  # fmt: skip
    """Write a data set of drawn characters, in a layout that the field's loaders and `refnet train` read.

    flat: single pictures with all annotations. viton-hd, stable-garment: people and garments to try on. ubc, tiktok:
    films of dancing people. hdtf, aniportrait: talking heads. parts2whole: people in parts. identities: pictures of
    each person. views: people from eleven cameras.
    """
    if speech is not None and layout != "hdtf":
        raise ValueError(f"--speech is of --layout hdtf, but the layout is {layout}; leave one of them out.")
    if sway != 1 and layout not in layouts.TALKING:
        talking = " and ".join(layouts.TALKING)
        raise ValueError(f"--sway is of --layout {talking}, but the layout is {layout}; leave it out.")
    check_speech(speech)
    check_place(out, folder=True)
    features: dict[str, Any] = {}
    if layout == "hdtf":
        features = {
            "embed": heads.embedding(),
            "hear": None if speech is None else heads.hearing(None if speech == BUILTIN else speech),
        }
    with progress_bar(layout, count) as (bar, task):
        folder = layouts.write_dataset(
            out, count, layout, size=size, seed=seed, workers=workers, sway=sway, **features,
            progress=lambda done, _: bar.update(task, completed=done),
        )  # fmt: skip
    say(f"{count} of {layout} in {folder}")
