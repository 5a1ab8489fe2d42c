"""What commands that write films do alike: weights, processes, progress."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from PIL import Image
from rich.progress import Progress, TaskID

from referencenet.bases.devices import choose_device
from referencenet.cli.console import note, progress_bar
from referencenet.cli.run import STRETCHED, load
from referencenet.media.films import FrameSource
from referencenet.media.fitting import fitting_told
from referencenet.pipelines.encoders import squared
from referencenet.pipelines.film_files import FilmSettings, animate_film, num_predictions, settled
from referencenet.sampling.insertion import read_interpolator
from referencenet.sampling.processes import ALONE, Processes


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Which pipeline, as the options say it.

    Attributes:
        pipeline: The system's class.
        checkpoint: The folder; None: random weights.
        base: Folder or hub name of the base model.
        device: Where it computes.
        dtype: What it computes in.
        offload: How its weights wait in the CPU's memory; None: they do not.
        vae_tiling: Whether pictures are encoded and decoded tile by tile.
        own: Settings of the pipeline itself; None: its default.
    """

    pipeline: Any
    checkpoint: Path | None
    base: str | None
    device: str
    dtype: str
    offload: str | None = None
    vae_tiling: bool = False
    own: Mapping[str, Any] = field(default_factory=dict[str, Any])


def run_film(
    weights: Weights,
    subject: Any,
    films: Sequence[FrameSource],
    out: Path,
    settings: FilmSettings,
    *,
    resume: bool = False,
    interpolator: Path | None = None,
    sound: Path | None = None,
    overwrite: bool = False,
    beside: Mapping[str, Any] | None = None,
) -> FilmSettings | None:
    """Write a film and show how far it is, in this process or in those that were started together.

    Args:
        weights: The pipeline.
        subject: The reference, a picture or a bank.
        films: Of drawings.
        out: Where to.
        settings: Of the film.
        resume: Go on with a film that was cut short.
        interpolator: File of the network that inserts frames where `settings.every` leaves some out.
        sound: A file whose sound becomes the track.
        overwrite: Take an older film's frames out of the folder.
        beside: What was typed, to stand beside the film with its settings.

    Returns:
        The settings with nothing left open; None in processes that write nothing.
    """
    with launched(weights.device) as processes:
        place = PartialState().device if processes.count > 1 else weights.device
        between = None if interpolator is None else read_interpolator(interpolator, choose_device(str(place)))
        pipe = load(
            weights.pipeline, weights.checkpoint, weights.base, place, weights.dtype, offload=weights.offload,
            vae_tiling=weights.vae_tiling, **weights.own,
        )  # fmt: skip
        settings = settled(pipe, films, settings)
        if processes.is_main:
            _tell_fit(pipe, subject, films[0], settings)
        run = partial(
            animate_film, pipe, subject, films, out, settings, resume=resume, interpolator=between, sound=sound,
            across_processes=processes.count > 1, overwrite=overwrite, beside=beside,
        )  # fmt: skip
        if not processes.is_main:
            run()
            return None
        with progress_bar("animating", num_predictions(pipe, settings)) as (bar, task):
            run(step_done=partial(show, bar, task))
    return settings


def _tell_fit(pipe: Any, subject: Any, film: FrameSource, settings: FilmSettings) -> None:
    """Say what is done to pictures of other proportions than the film."""
    size = settings.width or 0, settings.height or 0
    usual = "its middle is kept" if pipe.fit is squared else STRETCHED
    shown = {"a pose": next(iter(film))}
    if isinstance(subject, Image.Image):
        shown = {"the reference": subject, **shown}
    for name, picture in shown.items():
        said = fitting_told(name, picture.size, size, settings.fit, usual)
        if said is not None:
            note(said)


def show(bar: Progress, task: TaskID, done: int) -> None:
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
