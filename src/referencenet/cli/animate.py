"""`refnet animate`: the person of a picture in a film of poses."""

import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import PartialState
from rich.console import Console
from rich.progress import Progress, TaskID

from referencenet.checkpoints.published import PublishedSet
from referencenet.cli.console import progress_bar, tell
from referencenet.cli.models import choose_device, choose_dtype
from referencenet.cli.options import Checkpoint, Device, Dtype, RandomTiny
from referencenet.cli.settings import parse_size
from referencenet.links.bank import ReferenceBank
from referencenet.media.files import written_whole
from referencenet.media.films import DEFAULT_RATE
from referencenet.media.images import read_image
from referencenet.methods.systems import pipelines
from referencenet.methods.tiny import tiny_pipeline
from referencenet.pipelines.film_files import FilmSettings, animate_film, num_predictions, open_films, settled, vars_of
from referencenet.preprocess.body import SkeletonFilm, read_key_points
from referencenet.preprocess.proportions import fit_bodies
from referencenet.sampling.processes import ALONE, Processes
from referencenet.version import __version__

PIPELINES = {name: pipeline for name, pipeline in pipelines("animate").items() if hasattr(pipeline, "stream")}
MethodChoice = StrEnum("MethodChoice", {name: name for name in PIPELINES})
DEFAULT_METHOD = MethodChoice("animate_anyone")


app = typer.Typer(add_completion=False)


@app.command()
def animate(
    reference: Annotated[str, typer.Option("--reference", "-r", metavar="PICTURE|BANK", help="The person.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="film.mp4, .webm, .gif, or a folder for PNG frames.")],
    poses: Annotated[
        list[Path] | None,
        typer.Option("--poses", "-p", metavar="FILM|FOLDER", help="Skeleton drawings. Re-enactment: head and mouth."),
    ] = None,
    keypoints: Annotated[
        Path | None,
        typer.Option("--keypoints", "-k", metavar="JSON|FOLDER", help="Instead of --poses: OpenPose's key points."),
    ] = None,
    fit_to: Annotated[
        Path | None,
        typer.Option("--fit-to", metavar="JSON", help="The person's own key points: --keypoints get their build."),
    ] = None,
    method: Annotated[
        MethodChoice,  # pyright: ignore[reportInvalidTypeForm] - the choices come from the registry
        typer.Option(help="Which released model."),
    ] = DEFAULT_METHOD,
    checkpoint: Checkpoint = None,
    random_tiny: RandomTiny = False,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", show_default="that of the poses", help="In pixels.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, show_default="all poses", help="Frames.")] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, show_default="the poses'", help="Frames per second.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, show_default="the system's", help="Denoising steps.")] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, show_default="the system's", help="Guidance scale; 1 is none.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 42,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Reference, poses, result in one film.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a film that was cut short.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:  # fmt: skip
    """Animate the person of a picture.

    Try: `refnet animate -r hero.png -p dance.mp4 --checkpoint pretrained_weights --out film.mp4`
    """
    if checkpoint is None and not random_tiny:
        tell(files_needed(PIPELINES[method].published))
        raise typer.Exit(2)
    width, height = parse_size(size) if size else (None, None)
    settings = FilmSettings(
        width=width,
        height=height,
        num_frames=frames,
        rate=None if fps is None else Fraction(fps).limit_denominator(1001),
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=seed,
        side_by_side=side_by_side,
    )
    subject = read_reference(reference)
    films = pose_films(poses or [], keypoints, fit_to, subject, settings)
    with launched(device) as processes:
        several = processes.count > 1
        target = PartialState().device if several else choose_device(device)
        pipe = load(method, checkpoint, target, choose_dtype(dtype, target))
        settings = settled(pipe, open_films(pipe, films, settings), settings)
        if not processes.is_main:
            animate_film(pipe, subject, films, out, settings, resume=resume, across_processes=True)
            return
        inputs = {"poses": [str(path) for path in poses or []], "keypoints": keypoints, "fit_to": fit_to}
        write_settings(out, settings, {"method": method, "reference": reference, "checkpoint": checkpoint} | inputs)
        with progress_bar("animating", num_predictions(settings)) as (bar, task):
            done = partial(_show, bar, task)
            animate_film(pipe, subject, films, out, settings, resume=resume, across_processes=several, step_done=done)
    Console().print(f"{settings.num_frames} frames in {out}", soft_wrap=True)


def _show(bar: Progress, task: TaskID, done: int) -> None:
    """Move the progress bar."""
    bar.update(task, completed=done)


@contextmanager
def launched(device: str) -> Generator[Processes]:
    """The processes that `accelerate launch` or `torchrun` has started together; without them this one alone.

    Args:
        device: As the option says it; "cpu" keeps all of them on the CPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    state = PartialState(cpu=device == "cpu")
    try:
        yield Processes.started()
    finally:
        state.destroy_process_group()


def pose_films(
    poses: Sequence[Path], keypoints: Path | None, fit_to: Path | None, subject: Any, settings: FilmSettings
) -> list[Path | SkeletonFilm]:
    """The pose films: as they are given, or drawn from key points.

    Args:
        poses: Drawings.
        keypoints: Key points to draw instead.
        fit_to: Key points of the person, whose proportions the drawn skeletons get.
        subject: The reference, a picture or a bank.
        settings: Say the film's size if the key points do not.

    Raises:
        ValueError: If neither or both are given, or a size is missing.
    """
    if bool(poses) == (keypoints is not None):
        raise ValueError("give either --poses, skeleton drawings, or --keypoints, from which they are drawn.")
    if keypoints is None:
        if fit_to is not None:
            raise ValueError("--fit-to needs --keypoints: drawn skeletons cannot be fitted, their key points can.")
        return list(poses)
    frames, canvas = read_key_points(keypoints)
    given = (settings.width, settings.height) if settings.width and settings.height else None
    size = given or canvas
    if size is None:
        raise ValueError(f"{keypoints} does not say how large its pictures are; give --size WIDTHxHEIGHT.")
    if canvas is not None:
        frames = [frame.scaled(size[0] / canvas[0], size[1] / canvas[1]) for frame in frames]
    if fit_to is not None:
        persons, own = read_key_points(fit_to)
        own = own or getattr(subject, "size", None)
        if own is None or len(persons) != 1:
            raise ValueError(
                f"{fit_to} has {len(persons)} frames; expected one, of the reference picture, with canvas_width and "
                "canvas_height if the reference is a saved bank."
            )
        frames = fit_bodies(frames, persons[0].scaled(size[0] / own[0], size[1] / own[1]))
    return [SkeletonFilm(frames, size, settings.rate or DEFAULT_RATE)]


def files_needed(published: PublishedSet) -> str:
    """Which files to get, from where and under which licence."""
    files = {file.path: file.component if file.component in published.further else None for file in published.files}
    needed = {
        name: part for name, part in published.further.items() if part.default is None and name not in files.values()
    }
    lines = [
        f"[bold]{published.name}[/] needs its released files; give their folder with --checkpoint.",
        f"  from     {published.source}",
        f"  licence  {published.licence}",
        *(f"  file     {path}{f', or a folder {part}/' if part else ''}" for path, part in files.items()),
        *(f"  folder   {part.folder or name}/   from {part.source}" for name, part in needed.items()),
        "Or try the installation without them: --random-tiny.",
    ]
    return "\n".join(lines)


def load(method: str, checkpoint: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline: of a converted folder, of released files, or tiny and random."""
    if checkpoint is None:
        if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
            tell("[yellow]note:[/] tiny random weights; the film will show nothing.")
        pipe = tiny_pipeline(method)
    elif (checkpoint / "model_index.json").is_file():
        pipe = PIPELINES[method].from_pretrained(checkpoint)
    else:
        pipe = PIPELINES[method].from_published(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device=device, dtype=dtype)


def read_reference(reference: str) -> Any:
    """A picture, or a saved bank."""
    return ReferenceBank.load(reference) if reference.endswith(".safetensors") else read_image(reference)


def write_settings(out: Path, settings: FilmSettings, further: dict[str, Any]) -> None:
    """Write everything that decides the film beside it."""
    document = {name: str(value) if isinstance(value, Fraction) else value for name, value in vars_of(settings).items()}
    path = out.with_name(f"{out.name}.json")
    with written_whole(path) as file:
        file.write_text(
            json.dumps(further | document | {"referencenet": __version__}, indent=1, default=str) + "\n",
            encoding="utf-8",
        )
