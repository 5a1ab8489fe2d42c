"""`refnet benchmark builtin`: what the built-in model brings over, in numbers."""

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
from referencenet.cli.console import progress_bar
from referencenet.later import later
from referencenet.media.files import check_place, written_whole
from referencenet.version import __version__

if TYPE_CHECKING:
    import referencenet.builtin.load as shipped
    from referencenet.builtin.training import benchmark as measuring
    from referencenet.cli import quiet as hushing
else:
    shipped, measuring, hushing = later(
        "referencenet.builtin.load", "referencenet.builtin.training.benchmark", "referencenet.cli.quiet"
    )

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", no_args_is_help=True)
NUM_PARTS = 5
"""Of the measurement: without a reference, three links, the ReferenceNet."""


@app.callback()
def benchmark() -> None:
    """Measure how much of a character the built-in model brings over."""


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

        results = measuring.benchmark_builtin(characters, seed, folder=weights or shipped.WEIGHTS, progress=begin)
        bar.update(task, completed=NUM_PARTS, description="measuring")
    if json_file is not None:
        with written_whole(json_file) as file:
            file.write_text(json.dumps({**results, "made_with": _made_with()}, indent=2) + "\n", encoding="utf-8")
    _show(results)


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
