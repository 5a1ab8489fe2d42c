"""What every command that runs a published system does alike: weights, noise, progress, results and their settings."""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import typer
from PIL import Image

from referencenet.bases.devices import check_offload, choose_device, choose_dtype, place
from referencenet.builtin.shipped import ShippedSystem, drawn_heads, shipped_system
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.published import Part, PublishedSet, snapshot_of
from referencenet.cli.console import note, progress_bar, say, tell
from referencenet.cli.loaded import loaded
from referencenet.cli.quiet import quiet
from referencenet.cli.settings import parse_size
from referencenet.inputs import read_json
from referencenet.media.files import forget_settings, locked, paths_of, write_settings
from referencenet.media.fitting import Fit, fitted, fitting_told
from referencenet.media.sheets import write_image
from referencenet.methods.systems import pipelines, published_sets
from referencenet.methods.tiny import tiny_pipeline
from referencenet.pipelines.seeds import StepDone, draw_in_turn, steps_counted
from referencenet.preprocess.head_proxy import HeadCamera, HeadFilm

STRETCHED = "it is stretched"
"""What most systems do to a picture of other proportions than the result, as published."""


def need_weights(
    pipeline: Any, checkpoint: Path | None, base: str | None, random_tiny: bool, *beside: PublishedSet | Part
) -> Any:
    """Without weights take the built-in ones and say so; where there are none, say which files to get, and leave.

    Args:
        pipeline: The system's class.
        checkpoint: Folder of its files, as typed.
        base: The base model, as typed.
        random_tiny: Whether there shall be none.
        beside: Further sets and parts that the command reads from the same folder.

    Returns:
        What `load` takes: the class, or a `ShippedSystem`, which has the defaults of the built-in weights.

    Raises:
        typer.Exit: If there are none.
        FileNotFoundError: If the base is not there.
        ValueError: If the folder is another system's.
    """
    published: PublishedSet = pipeline.published
    has_all = checkpoint is not None and is_converted(checkpoint, pipeline)  # and is told to need no base
    if checkpoint is not None:
        refuse_others_files(published, checkpoint)
    if (
        base is not None
        and not has_all
        and not Path(base).is_dir()
        and (base.startswith((".", "/", "~")) or base.count("/") != 1)
    ):
        raise FileNotFoundError(f"there is no --base {base}; give a folder, or a name on the hub, as in owner/name.")
    if checkpoint is not None or random_tiny:
        return pipeline
    small = shipped_system(pipeline)
    if small is None:
        tell(files_needed(published, *beside))
        raise typer.Exit(2)
    if base is not None:
        raise ValueError(
            "--base is for released files, and the built-in weights have their own; give --checkpoint too."
        )
    if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
        note(small.told)
    return small


def refuse_others_files(published: PublishedSet, folder: Path) -> None:
    """Refuse a folder that holds another system's released files, by their names.

    Raises:
        ValueError: If it does; says whose.
    """
    if (folder / "model_index.json").is_file() or not folder.is_dir() or published.is_in(folder):
        return
    for other in published_sets().values():
        with suppress(CheckpointError):  # a name that could be several files' is for who reads them
            if other.is_in(folder):
                raise ValueError(
                    f"{folder} holds the files of {other.name}, not of {published.name}; give another --checkpoint or "
                    "--method."
                )


def files_needed(published: PublishedSet, *beside: PublishedSet | Part) -> str:
    """Which files to get, from where and under which licence."""
    files = {file.path: file.component if file.component in published.further else None for file in published.files}
    needed = {
        name: part for name, part in published.further.items() if part.default is None and name not in files.values()
    }
    lines = [
        f"[bold]{published.name}[/] {published.notice}",
        f"  from     {published.source}",
        f"  licence  {published.licence}",
        *(f"  file     {path}{f', or a folder {part}/' if part else ''}" for path, part in files.items()),
        *(line for further in beside for line in _lines_of(further)),
        *(
            f"  folder   {part.folder or name}/   from {part.source}{' (or --base)' * part.in_base}"
            for name, part in needed.items()
        ),
        "Or try the installation without them: --random-tiny.",
    ]
    return "\n".join(lines)


def _lines_of(further: PublishedSet | Part) -> list[str]:
    """What else to get, a line each."""
    if isinstance(further, Part):
        return [f"  folder   {further.folder}/   from {further.source}"]
    return [f"  file     {file.path}   from {further.source}" for file in further.files]


def load(
    pipeline: Any, checkpoint: Path | None, base: str | None, device: str | torch.device,
    dtype: str, *, offload: str | None = None, vae_tiling: bool = False, **own: Any,
) -> Any:  # fmt: skip
    """The pipeline: of a converted folder, of released files, built in, or tiny and random.

    Args:
        pipeline: The system's class, or its built-in weights.
        checkpoint: The folder; None: random weights, but of a `ShippedSystem`.
        base: Folder or hub name of the base model, for released files.
        device: As the option says it, or where it computes.
        dtype: As the option says it.
        offload: As the option says it.
        vae_tiling: As the option says it.
        own: Settings of the pipeline itself; None: its default.

    Raises:
        ValueError: If the folder holds another system's pipeline, a base is given for a converted one, or weights
            cannot be offloaded.
    """
    quiet()
    target = choose_device(device) if isinstance(device, str) else device
    check_offload(offload, target)

    def fresh() -> Any:
        pipe = _read(pipeline, checkpoint, base)
        pipe.register_to_config(**{name: value for name, value in own.items() if value is not None})
        pipe.set_progress_bar_config(disable=True)
        wanted = choose_dtype(dtype, target)
        return place(pipe if pipe.dtype == wanted else pipe.to(wanted), target, offload=offload, vae_tiling=vae_tiling)

    kind = (pipeline.__name__, isinstance(pipeline, ShippedSystem), str(checkpoint), base)
    source = (*kind, str(target), dtype, offload, vae_tiling, sorted(own.items()))
    return loaded(source, fresh)


def _read(pipeline: Any, checkpoint: Path | None, base: str | None) -> Any:
    """The pipeline of a folder, on the CPU, as it lies there; without a folder built in, or tiny and random."""
    if isinstance(pipeline, ShippedSystem):
        return pipeline.load()
    if checkpoint is None:
        if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
            note("tiny random weights; the result will show nothing.")
        return tiny_pipeline(pipeline)
    if is_converted(checkpoint := snapshot_of(checkpoint), pipeline):
        if base is not None:
            raise ValueError(f"{checkpoint} is a converted folder, which has all it needs; leave --base out.")
        return pipeline.from_pretrained(checkpoint)
    return pipeline.from_published(checkpoint, **({} if base is None else {"base": base}))


def pixels_per_latent(pipeline: Any) -> int:
    """Of what `need_weights` gave: how many pixels a latent's side covers."""
    return pipeline.factor if isinstance(pipeline, ShippedSystem) else 8


def call_beside(pipeline: Any) -> Mapping[str, Any]:
    """Of what `need_weights` gave: what a call is told beside the command's options."""
    return pipeline.call if isinstance(pipeline, ShippedSystem) else {}


def drawn_heads_of(pipeline: Any) -> Callable[[Sequence[HeadCamera], tuple[int, int]], list[Image.Image]]:
    """Of what `need_weights` gave: what draws a head from cameras, as the weights know it."""
    if isinstance(pipeline, ShippedSystem):
        return drawn_heads
    return lambda angles, size: HeadFilm(angles, size).pictures


def is_converted(folder: Path, pipeline: Any) -> bool:
    """Whether a folder was saved by a pipeline of ours, not published as it is.

    Raises:
        ValueError: If it was saved by another system's.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        return False
    found = read_json(index, "the index of a saved pipeline")
    saved = found.get("_class_name") if isinstance(found, dict) else None
    saved = saved[-1] if isinstance(saved, list) and saved else saved
    if saved != pipeline.__name__ and saved in {known.__name__ for known in pipelines().values()}:
        raise ValueError(f"{folder} holds a {saved}, not a {pipeline.__name__}; give another --checkpoint or --method.")
    return saved == pipeline.__name__


def drawing_options(spec: Any, size: str | None, steps: int | None, guidance: float | None) -> dict[str, Any]:
    """Options of a picture pipeline's call, with what was left open taken from the system's `spec`."""
    width, height = parse_size(size, multiple=8) if size else spec.size
    return {
        "width": width, "height": height, "num_inference_steps": steps or spec.steps,
        "guidance_scale": spec.scale if guidance is None else guidance,
    }  # fmt: skip


@contextmanager
def steps_shown(what: str, steps: int, count: int = 1) -> Generator[StepDone]:
    """Show a progress bar while the block runs.

    Args:
        what: Is done.
        steps: That are asked for; the scheduler may take others, which the bar learns at the first.
        count: Calls.

    Yields:
        A pipeline's `callback_on_step_end`.
    """
    with progress_bar(what, steps * count) as (bar, task):
        yield steps_counted(lambda done, total: bar.update(task, completed=done, total=total), count)


def draw_pictures(
    pipe: Any,
    *given: Any,
    out: Path,
    count: int,
    seed: int,
    what: str,
    settings: Mapping[str, Any],
    shown: Callable[[Image.Image], Image.Image] = lambda picture: picture,
    **options: Any,
) -> list[Image.Image]:
    """Draw pictures one at a time and write each when it is finished; behind the last what decides them; say where.

    Args:
        pipe: Draws them.
        given: To the pipeline's call.
        out: Path of the picture; of several the first goes to out-1, and so on.
        count: Pictures.
        seed: Of the first; each has its own, counted up, so that it is what it would be alone.
        what: Is done, for the progress bar.
        settings: By name.
        shown: What is written of a picture.
        options: To the pipeline's call.

    Returns:
        The pictures, as drawn.

    Raises:
        ValueError: If another process is writing them, or one holds values that are not finite.
    """
    paths = paths_of(out, count)
    drawn: list[Image.Image] = []
    with locked(out), steps_shown(what, options["num_inference_steps"], count) as done:
        told = options | {"callback_on_step_end": done}
        for path, (each, picture) in zip(
            paths, draw_in_turn(pipe, *given, count=count, seed=seed, **told), strict=True
        ):
            drawn.append(picture)
            forget_settings(out)
            write_image(shown(picture), path, _of_one(settings, each))
        write_settings(out, settings)
    say("\n".join(map(str, paths)))
    return drawn


def _of_one(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The settings of one of several pictures."""
    said = settings.get("again", {})
    alone = {name: value for name, value in said.get("options", {}).items() if name != "count"} | {"seed": seed}
    return {**settings, "seed": seed, "count": 1, "again": {**said, "options": alone}}


def fitted_pictures(
    pictures: Mapping[str, Image.Image],
    size: tuple[int, int],
    how: Fit | None,
    usual: str = STRETCHED,
    ground: str = "white",
) -> dict[str, Image.Image]:
    """Pictures of other proportions than the result, brought to them, with a word on what was done.

    Args:
        pictures: Option to picture; masks are of mode L.
        size: Of the result in pixels.
        how: As chosen; None: the pictures stay as they are, for the system to do what is usual.
        usual: In words.
        ground: Of borders; masks get black ones.
    """
    found = dict(pictures)
    for name, picture in pictures.items():
        said = fitting_told(name, picture.size, size, how, usual)
        if said is not None:
            note(said)
        by_itself = how == "stretch" and usual == STRETCHED
        if said is not None and how is not None and not by_itself:
            found[name] = fitted(picture, size, how, "black" if picture.mode == "L" else ground)
    return found
