"""What every command that runs a published system does alike: weights, noise, progress, results and their settings."""

import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import typer
from PIL import Image
from rich.console import Console

from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.published import Part, PublishedSet
from referencenet.cli.console import progress_bar, tell
from referencenet.cli.models import check_offload, choose_device, choose_dtype, place
from referencenet.cli.settings import parse_size
from referencenet.media.files import written_whole
from referencenet.media.sheets import write_image
from referencenet.methods.systems import pipelines, published_sets
from referencenet.methods.tiny import tiny_pipeline
from referencenet.version import __version__

StepDone = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


def need_weights(
    published: PublishedSet, checkpoint: Path | None, base: str | None, random_tiny: bool, *beside: PublishedSet | Part
) -> None:
    """Without weights say on one screen which files to get, and leave.

    Args:
        published: The system's files.
        checkpoint: Their folder, as typed.
        base: The base model, as typed.
        random_tiny: Whether there shall be none.
        beside: Further sets and parts that the command reads from the same folder.

    Raises:
        typer.Exit: If there are none.
        FileNotFoundError: If the checkpoint is not there.
        ValueError: If options for weights exclude each other.
    """
    if random_tiny and (checkpoint is not None or base is not None):
        raise ValueError("--random-tiny makes its own weights; leave away either it, or --checkpoint and --base.")
    if checkpoint is not None and not checkpoint.exists():
        raise FileNotFoundError(f"there is no --checkpoint {checkpoint}; give the folder of {published.name}'s files.")
    if checkpoint is not None:
        refuse_others_files(published, checkpoint)
    if checkpoint is None and not random_tiny:
        tell(files_needed(published, *beside))
        raise typer.Exit(2)


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
    """The pipeline: of a converted folder, of released files, or tiny and random.

    Args:
        pipeline: The system's class.
        checkpoint: The folder; None: random weights.
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
    target = choose_device(device) if isinstance(device, str) else device
    check_offload(offload, target)
    if checkpoint is None:
        if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
            tell("[yellow]note:[/] tiny random weights; the result will show nothing.")
        pipe = tiny_pipeline(pipeline)
    elif is_converted(checkpoint, pipeline):
        if base is not None:
            raise ValueError(f"{checkpoint} is a converted folder, which has all it needs; leave --base away.")
        pipe = pipeline.from_pretrained(checkpoint)
    else:
        pipe = pipeline.from_published(checkpoint, **({} if base is None else {"base": base}))
    pipe.register_to_config(**{name: value for name, value in own.items() if value is not None})
    pipe.set_progress_bar_config(disable=True)
    return place(pipe.to(choose_dtype(dtype, target)), target, offload=offload, vae_tiling=vae_tiling)


def is_converted(folder: Path, pipeline: Any) -> bool:
    """Whether a folder was saved by a pipeline of ours, not published as it is.

    Raises:
        ValueError: If it was saved by another system's.
    """
    if not (folder / "model_index.json").is_file():
        return False
    saved = pipeline.load_config(folder).get("_class_name")
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


def generators(seed: int, count: int) -> torch.Generator | list[torch.Generator]:
    """Where the noise of so many pictures comes from: each has its own seed, counted up."""
    made = [torch.Generator().manual_seed(seed + i) for i in range(count)]
    return made if count > 1 else made[0]


@contextmanager
def steps_shown(what: str, steps: int) -> Generator[StepDone]:
    """Show a progress bar while the block runs.

    Args:
        what: Is done.
        steps: That are asked for; the scheduler may take others, which the bar learns at the first.

    Yields:
        A pipeline's `callback_on_step_end`.
    """
    with progress_bar(what, steps) as (bar, task):

        def done(pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            bar.update(task, completed=step + 1, total=len(pipe.scheduler.timesteps))
            return tensors

        yield done


def write_pictures(pictures: Sequence[Image.Image], out: Path, settings: dict[str, Any]) -> None:
    """Write pictures and, beside them, everything that decides them; say where they are.

    Args:
        pictures: One goes to `out`; of several the first to out-1, and so on.
        out: Path of the picture.
        settings: By name.
    """
    paths = [out.with_stem(f"{out.stem}-{i + 1}") for i in range(len(pictures))] if len(pictures) > 1 else [out]
    for picture, path in zip(pictures, paths, strict=True):
        write_image(picture, path)
    write_settings(out, settings)
    Console().print("\n".join(map(str, paths)), soft_wrap=True, highlight=False)


def write_settings(out: Path, settings: dict[str, Any]) -> None:
    """Write what decides a result beside it; what was left open, None, is left away."""
    document = {name: value for name, value in settings.items() if value is not None} | {"referencenet": __version__}
    with written_whole(out.with_name(f"{out.name}.json")) as file:
        file.write_text(json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
