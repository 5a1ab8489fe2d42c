"""What commands check before torch is imported: files that are there, places for results, options that exclude."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from referencenet.bases.names import BUILTIN
from referencenet.cli.options import is_typed, refuse_others
from referencenet.cli.settings import parse_size
from referencenet.inputs import is_address, is_there
from referencenet.media.files import check_settings_place, locked, paths_of, refuse_taken, settings_path
from referencenet.media.films import check_film_path
from referencenet.media.folders import pictures_in
from referencenet.media.images import read_image
from referencenet.media.sheets import check_picture_path

WEIGHTS = Path(__file__).parents[1] / "builtin" / "weights"
"""Of the built-in model, found without torch."""
WRITTEN = ("out", "preview", "settings")
"""Options that name a result, or what is read whole before any is written."""
NOT_READ = ("out", "preview", "json_file", "export_to", "to", "models")
"""Options that say where something goes; and `models`, of which the reader says how to fill it."""


def check_given(ctx: typer.Context) -> None:
    """Make sure that every file and folder that was given is there, and that results take the place of none.

    Args:
        ctx: Of the command.

    Raises:
        FileNotFoundError: If one is missing.
        ValueError: If one is a web address, or is where the result goes.
    """
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if parameter.name in NOT_READ:
            continue
        for path in value if isinstance(value, list | tuple) else [value]:
            if isinstance(path, Path):
                check_there(path, _called(parameter))
    if isinstance(ctx.params.get("out"), Path):
        check_apart(ctx, *results_of(ctx))


def check_there(path: Path, option: str) -> None:
    """Make sure that a file or folder is there.

    Args:
        path: As typed.
        option: That it was given to.

    Raises:
        FileNotFoundError: If it is not.
        ValueError: If it is a web address.
    """
    if is_there(path):
        return
    if is_address(str(path)):
        raise ValueError(f"{option} {path} is a web address; download the file and give its path.")
    raise FileNotFoundError(f"there is no {option} {path}; check the path (the current folder is {Path.cwd()}).")


def results_of(ctx: typer.Context) -> list[Path]:
    """Where a command writes, settings and preview included; and frames of a folder that it takes away."""
    out: Path = ctx.params["out"]
    found = [out, settings_path(out)]
    if out.suffix:
        found += paths_of(out, ctx.params.get("count") or 1)
    if isinstance(ctx.params.get("preview"), Path):
        found.append(ctx.params["preview"])
    if ctx.params.get("overwrite") and "count" not in ctx.params and out.is_dir():  # pictures replace no folder
        found += pictures_in(out)
    return found


def check_apart(ctx: typer.Context, *results: Path) -> None:
    """Make sure that results do not take the place of what they are made from.

    Args:
        ctx: Of the command.
        results: What is written, replaced or taken away.

    Raises:
        ValueError: If one of the files that were given is among them.
    """
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if parameter.name in WRITTEN or value is None:
            continue
        for given in value if isinstance(value, list | tuple) else [value]:
            for result in results:
                if isinstance(given, str | Path) and any(_is_same(result, place) for place in _places(given)):
                    raise ValueError(
                        f"{result} is what {_called(parameter)} gives, and the result would take its place; give "
                        "another --out."
                    )


def built_in_method(ctx: typer.Context, method: str, small: str, task: str) -> str:
    """Which system a command runs where none was typed: without weights, that of the built-in ones if there are any.

    Args:
        ctx: Of the command.
        method: As typed, or by default.
        small: The system of the built-in weights.
        task: Their folder.
    """
    given = ctx.params
    if (
        is_typed(ctx, "method")
        or given["checkpoint"] is not None
        or given["random_tiny"]
        or not (WEIGHTS / task).is_dir()
    ):
        return method
    ctx.params["method"] = small
    return small


def check_system(ctx: typer.Context, method: str) -> None:
    """Check what commands that run a published system have in common, as far as it is only words: no file is looked at.

    Args:
        ctx: Of the command.
        method: The system, or a published set of it.

    Raises:
        ValueError: If options exclude each other, or `--size` is none.
    """
    refuse_others(ctx, method)
    given = ctx.params
    if given["random_tiny"] and (given["checkpoint"] is not None or given["base"] is not None):
        raise ValueError("--random-tiny makes its own weights; leave out either it, or --checkpoint and --base.")
    if given["size"] is not None:
        parse_size(given["size"], multiple=8)


def check_person(reference: str) -> None:
    """Make sure that a picture, or a saved bank, can be read.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no picture.
    """
    if reference.endswith(".safetensors"):
        check_there(Path(reference), "--reference")
    else:
        read_image(reference)


def check_speech(speech: str | None, drawn_by: str | None = None) -> None:
    """Make sure that what is to hear is there: a folder, or the small built-in model.

    Args:
        speech: As typed.
        drawn_by: The system, if it hears by networks of its own, of which there are no small ones.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is a web address, or the system cannot hear by the small model.
    """
    if speech == BUILTIN and drawn_by is not None:
        raise ValueError(
            f"--speech builtin is what hallo and emo may hear by; for {drawn_by} give the FOLDER of audio2mesh.pt and "
            "audio2pose.pt."
        )
    if speech is not None and speech != BUILTIN:
        check_there(Path(speech), "--speech")


def check_models(person: int | None, models: Path | None) -> None:
    """Make sure that networks are given for somebody that they are to find.

    Raises:
        ValueError: If not.
    """
    if models is not None and person is None:
        raise ValueError("--models is where the networks for --person are, which was not given.")


def check_pictures(out: Path, *, count: int = 1, overwrite: bool = False) -> None:
    """Make sure that pictures and their settings can be written, before anything is read.

    Args:
        out: As typed.
        count: Pictures.
        overwrite: Whether older ones may be replaced.

    Raises:
        ValueError: If the ending names no picture, or the place is taken.
        OSError: If the place may not be written to, or pictures are there.
    """
    check_picture_path(out)
    check_settings_place(out)
    refuse_taken(paths_of(out, count), overwrite)


def check_every(every: int, interpolator: Path | None) -> None:
    """Make sure that frames are left out and inserted together.

    Raises:
        ValueError: If frames are to be inserted without a network, or it has nothing to do.
    """
    if (every > 1) != (interpolator is not None):
        raise ValueError("--every above 1 and --interpolator FILE belong together: it inserts the frames between.")


def check_film(out: Path, sound: Path | None = None, *, resume: bool = False, overwrite: bool = False) -> None:
    """Make sure that a film and its settings can be written, before anything is read.

    Args:
        out: Of the film.
        sound: Whose track it is to get.
        resume: Whether it is resumed.
        overwrite: Whether an older film may be replaced.

    Raises:
        ValueError: If the ending names no film, or another process is writing it.
        OSError: If the place is taken, or may not be written to.
    """
    try:
        check_film_path(out, sound, resume=resume, overwrite=overwrite)
    except FileExistsError as error:
        raise FileExistsError(str(error).replace("with overwrite", "with --overwrite")) from error
    check_settings_place(out)
    if out.is_file() and not resume:
        refuse_taken([out], overwrite)
    if out.parent.is_dir() and os.environ.get("RANK", "0") == "0":  # of several processes the one that writes
        with locked(out):
            pass


def check_sources(given: Mapping[str, Any]) -> None:
    """Make sure that there is one source of drawings.

    Args:
        given: Option to what was typed.

    Raises:
        ValueError: If there is none, or several.
    """
    names = [name for name, it in given.items() if it]
    if len(names) != 1:
        raise ValueError(
            f"{' and '.join(names) + ' were' if names else 'no film was'} given; give one of --poses, drawings, "
            "--keypoints and --landmarks, from which they are drawn, --video, an ordinary film in which they are found "
            "and --driving, one whose face moves the portrait's."
        )


def _places(given: str | Path) -> list[str | Path]:
    """The paths that somebody may mean: as typed, behind LABEL=, before :SCALE."""
    if isinstance(given, Path):
        return [given]
    return [place for place in (given, given.partition("=")[2], given.rpartition(":")[0]) if place]


def _is_same(out: Path, given: str | Path) -> bool:
    """Whether two paths are one file or folder."""
    try:
        return out.samefile(given)
    except (OSError, ValueError):  # one is not there, or is no path at all
        return False


def _called(parameter: Any) -> str:
    """What an error calls an option or an argument: --pose, or `film or folder`."""
    if parameter.param_type_name == "option":
        return parameter.opts[0]
    return (parameter.metavar or parameter.name).rstrip(".").lower().replace("|", " or ")
