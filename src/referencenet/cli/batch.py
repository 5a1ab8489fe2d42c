"""`refnet batch`: many jobs from a file, each drawn once, by several processes or on a Ray cluster."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from referencenet.batch.jobs import WrongJobs, check_ray, read_jobs
from referencenet.cli.console import progress_bar, say, tell
from referencenet.later import later
from referencenet.media.files import check_place

if TYPE_CHECKING:
    from referencenet.batch import on_ray, run, team
else:
    on_ray, run, team = later(*(f"referencenet.batch.{name}" for name in ("on_ray", "run", "team")))

app = typer.Typer(add_completion=False)


@app.command()
def batch(
    jobs: Annotated[
        Path, typer.Argument(metavar="JOBS.jsonl", help='A job a line: {"command": "generate", "prompt": ..., ...}.')
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results/ and batch.jsonl.")],
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=1, show_default="one for each GPU",
                     help="How many jobs are drawn at the same time; each worker loads its own model."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", show_default=False,
                     help="Draw on a Ray cluster: HOST:PORT, auto for the one of this machine, local to start one."),
    ] = None,
) -> None:  # fmt: skip
    """Draw many jobs, each a command with its settings.

    All jobs are checked before the first is drawn. A job whose result is there already is not drawn again. One that
    fails is tried once more, and listed with its reason; the others go on. Exits with 1 if any failed.

    Try: `refnet batch jobs.jsonl --out results --workers 2`
    """
    if ray is not None:
        check_ray()
    check_place(out, folder=True)
    try:
        found = read_jobs(jobs, elsewhere=ray is not None)
    except WrongJobs as wrong:
        for line in wrong.lines:
            tell(f"[bold red]error:[/] {escape(line)}")
        raise typer.Exit(2) from wrong

    with progress_bar("drawing", len({job.address for job in found})) as (bar, task):
        results = run.run_batch(found, out, partial(_workers, workers, ray), done=lambda _: bar.advance(task))
    failed = [result for result in results if result.state == "failed"]
    for job, result in zip(found, results, strict=True):
        if result.state == "failed":
            tell(f"[bold red]failed:[/] line {job.line}: {escape(result.reason)}")
    say(_summary(results, out))
    if failed:
        raise typer.Exit(1)


def _workers(size: int | None, ray: str | None, most: int) -> "team.Team":
    """Workers for so many jobs."""
    return team.Processes(size, most=most) if ray is None else on_ray.RayActors(size, most=most, address=ray)


def _summary(results: "list[run.Result]", out: Path) -> str:
    """How many jobs came to which end, and where everything is."""
    states = [result.state for result in results]
    counts = [f"{states.count(state)} {state}" for state in ("drawn", "kept", "failed", "not drawn") if state in states]
    return f"{len(results)} jobs: {', '.join(counts)}. {out / 'batch.jsonl'} lists them."
