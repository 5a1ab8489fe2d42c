"""`refnet again`: draw a picture or film again from what it says of itself."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from referencenet.cli.arguments import arguments_of
from referencenet.cli.console import note, tell
from referencenet.media.files import settings_path
from referencenet.media.films import FRAME
from referencenet.media.records import KEY, file_print, read_record
from referencenet.version import __version__

DRAWING = ("generate", "animate", "talk", "tryon", "face", "compose", "turn", "preprocess", "demo")
"""Commands whose results can be drawn again."""
FILMS = ("animate", "talk", "turn", "preprocess")
"""Those that write folders of frames."""

app = typer.Typer(add_completion=False)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def again(
    ctx: typer.Context,
    picture: Annotated[Path, typer.Argument(help="A picture or film that refnet drew.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", show_default="beside it: NAME-again, or a new run", help="As of its command."),
    ] = None,
) -> None:
    """Draw a picture or film again from the settings in it; options of its command may be changed.

    Try: `refnet again out/0001/seed-42.png --steps 30`
    """
    record = read_record(picture)
    name, options = _said(record, picture.name)
    if record.get(KEY) != __version__:
        note(f"{picture.name} was drawn by version {record.get(KEY)}, this is {__version__}; it may look different.")
    for path in _changed(record):
        note(f"{path} is missing or no longer what it was; the result will differ.")
    target = out or _beside(name, picture)
    group = ctx.find_root().command
    _, command, _ = group.resolve_command(ctx.find_root(), [name])  # pyright: ignore[reportAttributeAccessIssue]
    changed = _typed(command, name, ctx)
    arguments = arguments_of(command, name, {key: value for key, value in options.items() if key not in changed})
    arguments = [f"--out={target}", *ctx.args, *arguments]
    tell(f"[dim]refnet {name} {escape(shlex.join(arguments))}[/]")
    with command.make_context(name, arguments, parent=ctx.find_root()) as inner:
        command.invoke(inner)


def _said(record: Mapping[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    """The command of a record, and its options.

    Raises:
        ValueError: If there is none that draws.
    """
    said = record.get("again")
    command, options = (said.get("command"), said.get("options")) if isinstance(said, dict) else (None, None)
    if command not in DRAWING or not isinstance(options, dict):
        raise ValueError(f"{name} does not say by which command it was drawn; an earlier version wrote it, or another.")
    return command, options


def _changed(record: Mapping[str, Any]) -> list[str]:
    """Files that were read, and are no longer what they were."""
    files = record["again"].get("files")
    files = files if isinstance(files, dict) else {}
    return [path for path, was in files.items() if was is not None and file_print(Path(path).expanduser()) != was]


def _beside(command: str, picture: Path) -> Path:
    """Where a result goes if nobody says: beside the first one."""
    folder = picture.absolute().parent
    if command == "generate":  # runs stand in a folder of runs
        return folder.parent if folder.name.isdigit() else picture.parent
    is_frame = command in FILMS and FRAME.fullmatch(picture.name) is not None and settings_path(folder).is_file()
    if command == "demo" or is_frame:  # one file of a folder
        return folder.with_name(f"{folder.name}-again")
    return picture.with_stem(f"{picture.stem}-again")


def _typed(command: Any, name: str, ctx: typer.Context) -> set[str]:
    """Names of the options that were typed anew."""
    with command.make_context(name, list(ctx.args), resilient_parsing=True) as tried:
        sources = {each.name: tried.get_parameter_source(each.name) for each in command.params}
    return {key for key, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
