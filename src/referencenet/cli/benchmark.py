"""`refnet benchmark`: what the built-in model brings over, and every trained system against the drawn truth."""

import json
import os
import platform
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from referencenet.cli.checks import check_there
from referencenet.cli.console import progress_bar, say
from referencenet.cli.options import MOST_STEPS, GuidanceScale
from referencenet.later import later
from referencenet.media.files import check_place, written_whole
from referencenet.media.sheets import check_picture_path, write_image
from referencenet.methods.registry import named
from referencenet.telling import did_you_mean
from referencenet.training.recipes.index import recipes
from referencenet.version import __version__

if TYPE_CHECKING:
    import referencenet.builtin.load as shipped
    from referencenet.builtin.training import benchmark as measuring
    from referencenet.cli import quiet as hushing
    from referencenet.evaluation import measure, results, sheets, systems, task
else:
    shipped, measuring, hushing, results, sheets, systems = later(
        "referencenet.builtin.load", "referencenet.builtin.training.benchmark", "referencenet.cli.quiet",
        "referencenet.evaluation.results", "referencenet.evaluation.sheets", "referencenet.evaluation.systems",
    )  # fmt: skip

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", no_args_is_help=True)
NUM_PARTS = 5
"""Of the measurement: without a reference, three links, the ReferenceNet."""


@app.callback()
def benchmark() -> None:
    """Measure how much of a reference comes over: of the built-in model, and of every trained system."""


@app.command()
def builtin(
    characters: Annotated[int, typer.Option("--characters", "-n", min=2, help="Of the test split.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Which characters, scenes and noise.")] = 0,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="What `refnet train builtin --export` wrote.", show_default="shipped"),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results there.", show_default=False)
    ] = None,
) -> None:
    """Draw held-out characters with every link, and say how much of the gap each one closes.

    0 is a picture without reference, 1 the rendered truth as the model's autoencoder shows it.
    """
    if weights is not None:
        check_there(weights, "--weights")
    if json_file is not None:
        check_place(json_file)
    hushing.quiet()
    with progress_bar("measuring", NUM_PARTS) as (bar, task):
        begun: list[str] = []

        def begin(part: str) -> None:
            bar.update(task, completed=len(begun), description=f"measuring: {part}")
            begun.append(part)

        found = measuring.benchmark_builtin(characters, seed, folder=weights or shipped.WEIGHTS, progress=begin)
        bar.update(task, completed=NUM_PARTS, description="measuring")
    if json_file is not None:
        with written_whole(json_file) as file:
            file.write_text(json.dumps({**found, "made_with": _made_with()}, indent=2) + "\n", encoding="utf-8")
    _show(found)


@app.command()
def paperdoll(
    system: Annotated[str, typer.Argument(help=f"Registry name: {', '.join(recipes())}.")],
    characters: Annotated[int, typer.Option("--characters", "-n", min=2, help="Of the test split.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Which characters, scenes and noise.")] = 0,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FOLDER", show_default="the built-in weights",
            help="A run of `refnet train`, or a saved pipeline of the small networks.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="Denoising steps.")] = 20,
    guidance: GuidanceScale = None,
    note: Annotated[str, typer.Option(help="What there is to say of the result, such as why an aim is missed.")] = "",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results there.", show_default=False)
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="Also write the first cases there, a row for each way.")
    ] = None,
) -> None:  # fmt: skip
    """Measure a trained system on drawn characters that it has not seen, against the drawn truth.

    Beside it stand the same network with its link cut, a wrong reference, and the truth through the autoencoder.
    """
    name = named(system, recipes())
    if name is None:
        raise ValueError(
            f"there is no measurement of {system!r}; there are {', '.join(recipes())}.{did_you_mean(system, recipes())}"
        )
    if start is not None:
        check_there(start, "--from")
    if json_file is not None:
        check_place(json_file)
    if sheet is not None:
        check_picture_path(sheet)
    hushing.quiet()
    cases, found, drawing = _measured(name, characters, seed, start=start, steps=steps, guidance=guidance)
    weights = "built-in" if start is None else start.name
    told = results.document(
        cases, found, system=name, weights=weights, drawing=drawing, made_with=_made_with(), note=note
    )
    if json_file is not None:
        results.write_result(told, json_file)
    if sheet is not None:
        write_image(sheets.sheet_of(found.pictures), sheet)
    table = Table("", *found.scores, pad_edge=False)
    for measure in cases.measures:
        values = (scores[measure.name] for scores in found.scores.values())
        table.add_row(measure.told, *("exact" if value is None else f"{value:.4g}" for value in values))
    console = Console()
    console.print(table)
    gaps = ", ".join(f"{way} {gap:.3f}" for way, gap in found.gap_closed.items() if gap is not None)
    console.print(f"gap closed: {gaps}")


def _measured(
    system: str, characters: int, seed: int, **given: Any
) -> "tuple[task.Task, measure.Measured, task.Drawing]":
    """A measurement with its progress bar, which moves case by case."""
    with progress_bar("measuring", characters) as (bar, shown):
        return systems.benchmark_paperdoll(
            system, characters, seed, **given, drawn=lambda number: bar.advance(shown, number),
            begun=lambda part: bar.update(shown, completed=0, description=f"measuring: {part}"),
        )  # fmt: skip


@app.command("page")
def page_command(
    folder: Annotated[Path, typer.Argument(help="Of the results; index.md is written there.")] = Path("docs/results"),
) -> None:
    """Write the page of all results anew."""
    say(f"{results.write_page(folder)}")


_OBSERVED = {
    "whole captions followed": "attribute_accuracy",
    "short prompts followed": "short_prompt_accuracy",
    "ReferenceNet, of the person": "person_accuracy",
}
"""What is said of each share of aspects, and its key."""


def _show(results: dict[str, Any]) -> None:
    table = Table("link", "gap closed", "identity", "pose error", "PSNR (dB)", pad_edge=False)
    for name, identity in results["identity"].items():
        gap = results["gap_closed"].get(name)
        shown = [f"{identity:.3f}", f"{results['pose_error'][name]:.3f}", f"{results['psnr'][name]:.1f}"]
        table.add_row(name, "" if gap is None else f"{gap:.3f}", *shown)
    console = Console()
    console.print(table)
    for name, key in _OBSERVED.items():
        seen = results[key]
        console.print(f"{name}: {seen['mean']:.3f} (the observer sees {seen['observer_on_truth']:.3f} on the truth)")
    console.print("the observer itself: " + ", ".join(f"{name} {value}" for name, value in results["observer"].items()))


def _made_with() -> dict[str, str | int]:
    return {
        "referencenet": __version__,
        "torch": version_of("torch"),
        "diffusers": version_of("diffusers"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 0,
    }
