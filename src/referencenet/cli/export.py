"""`refnet export`: what a run has trained, as an ordinary pipeline folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from referencenet.cli.checks import check_given
from referencenet.cli.console import say
from referencenet.later import later
from referencenet.media.files import check_place

if TYPE_CHECKING:
    from referencenet.builtin import starts
    from referencenet.cli import quiet as hushing
    from referencenet.training import export as training
else:
    starts, hushing, training = later(
        "referencenet.builtin.starts", "referencenet.cli.quiet", "referencenet.training.export"
    )

app = typer.Typer(add_completion=False)


@app.command()
def export(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of `refnet train`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; new or empty.")],
    raw: Annotated[bool, typer.Option("--raw", help="The weights themselves, not their moving average.")] = False,
    trained: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE", help="Only what this stage has trained, as the package ships it. May be repeated."
        ),
    ] = None,
    eight_bit: Annotated[
        bool, typer.Option("--eight-bit", help="With --trained: large tensors in eight bits, half the size.")
    ] = False,
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
    if published + lora + bool(trained) > 1:
        raise ValueError("--trained, --published and --lora exclude each other; give one of them.")
    if eight_bit and not trained:
        raise ValueError("--eight-bit is for what a stage has trained alone; give --trained STAGE with it.")
    check_given(ctx)
    check_place(out, folder=True)
    hushing.quiet()
    form = "published" if published else "lora" if lora else "pipeline"
    folder = training.export(
        run, out, raw=raw, form=form, trained=trained or (), eight_bit=eight_bit, starts=starts.STARTS
    )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    say(f"{size:.1f} MB in {folder}")
