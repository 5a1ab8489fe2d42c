"""`refnet animate`: the person of a picture in a film of poses."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console

from referencenet.checkpoints.published import PublishedSet
from referencenet.cli.console import progress_bar, tell
from referencenet.cli.models import choose_device, choose_dtype
from referencenet.cli.settings import DtypeChoice, parse_size
from referencenet.links.bank import ReferenceBank
from referencenet.media.files import written_whole
from referencenet.media.images import read_image
from referencenet.methods.animate_anyone import AnimateAnyonePipeline, FaceReenactmentPipeline
from referencenet.methods.animation import FilmSettings, animate_film, num_predictions, open_films, settled, vars_of
from referencenet.methods.random_tiny import RANDOM_TINY
from referencenet.version import __version__

MethodChoice = Literal["animate_anyone", "animate_anyone.reenact"]

PIPELINES: dict[str, type[AnimateAnyonePipeline]] = {
    "animate_anyone": AnimateAnyonePipeline,
    "animate_anyone.reenact": FaceReenactmentPipeline,
}

app = typer.Typer(add_completion=False)


@app.command()
def animate(
    reference: Annotated[str, typer.Option("--reference", "-r", metavar="PICTURE|BANK", help="The person.")],
    poses: Annotated[
        list[Path],
        typer.Option("--poses", "-p", metavar="FILM|FOLDER", help="Skeleton drawings. Re-enactment: head and mouth."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="film.mp4, .webm, .gif, or a folder for PNG frames.")],
    method: Annotated[MethodChoice, typer.Option(help="Which released model.")] = "animate_anyone",
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The released files, or what `refnet convert` made of them.")
    ] = None,
    random_tiny: Annotated[
        bool, typer.Option("--random-tiny", help="Tiny random weights: tries the installation, draws nothing.")
    ] = False,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", show_default="that of the poses", help="In pixels.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, show_default="all poses", help="Frames.")] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, show_default="the poses'", help="Frames per second.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 30,
    guidance: Annotated[float, typer.Option(min=0, help="Guidance scale; 1 is none.")] = 3.5,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 42,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Reference, poses, result in one film.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a film that was cut short.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[DtypeChoice, typer.Option(help="auto is half precision on CUDA.")] = "auto",
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
    target = choose_device(device)
    pipe = load(method, checkpoint, target, choose_dtype(dtype, target))
    settings = settled(pipe, open_films(pipe, poses, settings), settings)
    write_settings(out, settings, {"method": method, "reference": reference, "poses": [str(path) for path in poses]})
    with progress_bar("animating", num_predictions(settings)) as (bar, task):
        animate_film(
            pipe, subject, poses, out, settings, resume=resume, step_done=lambda done: bar.update(task, completed=done)
        )
    Console().print(f"{settings.num_frames} frames in {out}", soft_wrap=True)


def files_needed(published: PublishedSet) -> str:
    """Which files to get, from where and under which licence."""
    lines = [
        f"[bold]{published.name}[/] needs its released files; give their folder with --checkpoint.",
        f"  from     {published.source}",
        f"  licence  {published.licence}",
        *(f"  file     {file.path}" for file in published.files),
        *(f"  folder   {name}/   from {source}" for name, source in published.further.items()),
        "Or try the installation without them: --random-tiny.",
    ]
    return "\n".join(lines)


def load(method: str, checkpoint: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline: of a converted folder, of released files, or tiny and random."""
    if checkpoint is None:
        tell("[yellow]note:[/] tiny random weights; the film will show nothing.")
        pipe = RANDOM_TINY[method]()
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
            json.dumps(further | document | {"referencenet": __version__}, indent=1) + "\n", encoding="utf-8"
        )
