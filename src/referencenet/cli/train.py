"""`refnet train builtin`: the built-in model again, from nothing or from weights that are there."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from referencenet.builtin.training.stages import STAGES, Settings, export, train
from referencenet.cli.console import tell
from referencenet.training.config import Precision

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", no_args_is_help=True)


@app.callback()
def train_command() -> None:
    """Train the built-in model again."""


@app.command()
def builtin(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; an unfinished one is continued.")],
    stage: Annotated[
        list[str] | None, typer.Option(metavar="|".join(STAGES), help="Only this. May be given again.")
    ] = None,
    export_to: Annotated[
        Path | None, typer.Option("--export", help="Then write the weights there, as the package ships them.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FOLDER", help="Weights that --export wrote: train these further, not from nothing."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda.")] = "cpu",
    precision: Annotated[Precision, typer.Option(help="What is computed in; weights are kept in fp32.")] = "fp32",
    stretch: Annotated[float, typer.Option(min=0.0001, help="Times as many steps as the shipped weights.")] = 1.0,
    characters: Annotated[int, typer.Option(min=10, help="To learn from.")] = 4000,
    batch: Annotated[int, typer.Option(min=2, help="Pictures of a step.")] = 16,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of everything.")] = 0,
) -> None:
    """Draw the pictures and train every stage: autoencoder, text to picture, pose guider, ReferenceNet, observer.

    The same command goes on where it was stopped, and computes what an unbroken run computes. Sample sheets lie in the
    run's folder. Two CPU cores need some hours; `--device cuda --stretch 10` is better and shorter.
    """
    settings = Settings(
        folder=out,
        characters=characters,
        batch=batch,
        seed=seed,
        device=device,
        precision=precision,
        stretch=stretch,
        workers=workers,
        start=start,
    )
    train(settings, stage or STAGES, tell=lambda begun: tell(f"[bold]{begun}[/]"))
    if export_to is not None:
        size = export(settings, export_to)
        Console().print(f"{size:.1f} MB in {export_to}", soft_wrap=True)
