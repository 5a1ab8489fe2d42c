"""`refnet train SYSTEM CONFIG`: train a published system, or the built-in model again.

Under `accelerate launch -m referencenet train ...` several processes train together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from referencenet.cli.checks import check_given
from referencenet.cli.console import say, tell
from referencenet.later import later
from referencenet.media.files import check_place
from referencenet.methods.registry import named
from referencenet.training.config import Precision, meant, read_config, read_tables
from referencenet.training.recipes.index import CONFIGURATIONS, trainings

if TYPE_CHECKING:
    import torch

    from referencenet.builtin import starts as beginnings
    from referencenet.builtin.training import stages
    from referencenet.cli import quiet as hushing
    from referencenet.training import run
else:
    torch, beginnings, stages, hushing, run = later(
        "torch", "referencenet.builtin.starts", "referencenet.builtin.training.stages", "referencenet.cli.quiet",
        "referencenet.training.run",
    )  # fmt: skip

STAGES = ("vae", "base", "guider", "referencenet", "observer", "image_encoder")
"""Of the built-in model, which a test compares."""


class Systems(TyperGroup):
    """Takes the name of any system as a command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find `builtin`; whatever else is named is a system's."""
        if args and args[0] not in self.commands:
            return "system", self.commands["system"], args
        return super().resolve_command(ctx, args)


app = typer.Typer(add_completion=False, rich_markup_mode="markdown", no_args_is_help=True, cls=Systems)


@app.callback()
def train_command() -> None:
    """Train a published system: `refnet train SYSTEM CONFIG --data ROOT --out RUN`; or `refnet train builtin`."""


@app.command(hidden=True)
def system(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SYSTEM", help=f"{', '.join(trainings())}.")],
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help=f"A TOML file, or {', '.join(CONFIGURATIONS)}, which are shipped.")
    ],
    data: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run.")] = None,
    start: Annotated[
        str,
        typer.Option(
            "--from", metavar="FOLDER", help="Weights to begin with, released or saved; or `builtin`, `tiny`."
        ),
    ] = "",
    base: Annotated[str | None, typer.Option(help="Folder of the base model, where released files need one.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only this; by default all of the file's, in order.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As `optimizer.learning_rate=2e-5`. May be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, and what memory it needs.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Train a published system's stages.

    The run's folder has checkpoints, `log.jsonl` and what the trackers write; stopped at any moment, it goes on with
    --resume and computes what an unbroken run computes. `refnet export RUN --out DIR` writes the pipeline.
    """
    if out is None and not dry_run:
        raise ValueError("no folder for the run was given; give --out.")
    name = check_order(name, config, stage, changes or ())
    check_given(ctx)
    if out is not None:
        check_place(out, folder=True)
    hushing.quiet()
    where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    order = run.Order(
        system=name, config=config, out=out or Path(), data=data, start=start, base=base, stage=stage,
        changes=tuple(changes or ()), resume=resume, device=where, starts=beginnings.STARTS,
    )  # fmt: skip
    if dry_run:
        say(run.plan(order))
    else:
        run.train(order, tell=tell)


def check_order(name: str, config: str, stage: str | None, changes: Sequence[str]) -> str:
    """See that a system can be trained, and that its configuration can be read.

    Returns:
        The system's name as the recipes have it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no such system, or the file or a change of it is wrong.
    """
    found = named(name, trainings())
    if found is None:
        raise ValueError(f"there is no recipe for {name!r}{meant(name, trainings())}")
    if config not in CONFIGURATIONS:
        for each in [stage] if stage else list(read_tables(config)):
            read_config(config, each, changes)
    return found


@app.command()
def builtin(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; an unfinished one is continued.")],
    stage: Annotated[
        list[str] | None, typer.Option(metavar="|".join(STAGES), help="Only this. May be repeated.")
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
    precision: Annotated[Precision, typer.Option(help="Precision of the computation; weights stay in fp32.")] = "fp32",
    stretch: Annotated[float, typer.Option(min=0.0001, help="Times as many steps as the shipped weights.")] = 1.0,
    characters: Annotated[int, typer.Option(min=10, help="To learn from.")] = 4000,
    batch: Annotated[int, typer.Option(min=2, help="Pictures of a step.")] = 16,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn at random.")] = 0,
) -> None:
    """Draw the pictures and train every stage: autoencoder, text to picture, pose guider, ReferenceNet, observer.

    The same command goes on where it was stopped, and computes what an unbroken run computes. Sample sheets lie in the
    run's folder. Two CPU cores need some hours; `--device cuda --stretch 10` is better and shorter.
    """
    unknown = [each for each in stage or () if each not in STAGES]
    if unknown:
        raise ValueError(f"--stage is {unknown[0]!r}{meant(unknown[0], STAGES)}")
    check_given(ctx)
    check_place(out, folder=True)
    hushing.quiet()
    settings = stages.Settings(
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
    stages.train(settings, stage or STAGES, tell=lambda begun: tell(f"[bold]{begun}[/]"))
    if export_to is not None:
        size = stages.export(settings, export_to)
        say(f"{size:.1f} MB in {export_to}")
