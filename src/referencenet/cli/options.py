"""Options that several commands have in common, and options that only some systems take.

An option of one system stands in a panel of the help that names it, `panel=only("parts2whole")`; given for another
system it is refused by its name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from referencenet.cli.settings import DtypeChoice, OffloadChoice
from referencenet.media.fitting import Fit
from referencenet.media.records import file_print, portable
from referencenet.methods.registry import METHODS, Task, named, names_of
from referencenet.telling import did_you_mean

ONLY = "Only for "

MOST_SCALE = 1000.0
"""Of guidance: more is no picture."""

Checkpoint = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The released files, or what `refnet convert` made of them.")
]
Base = Annotated[
    str | None, typer.Option(metavar="FOLDER|HUB_ID", help="The base model, for what the released files leave out.")
]
RandomTiny = Annotated[
    bool, typer.Option("--random-tiny", help="Tiny random weights: tries the installation, draws nothing.")
]
Size = Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", show_default="the system's", help="In pixels.")]
MOST_STEPS, LARGEST_SEED = 1000, 2**62
"""Steps of the schedules that all systems were trained with, and what generators of random numbers take."""

Steps = Annotated[int | None, typer.Option(min=1, max=MOST_STEPS, show_default="the system's", help="Denoising steps.")]
GuidanceScale = Annotated[
    float | None, typer.Option(min=0, max=MOST_SCALE, show_default="the system's", help="Guidance scale; 1 is none.")
]
Count = Annotated[int, typer.Option("--count", "-n", min=1, help="Pictures.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the first picture; the next ones count up.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[DtypeChoice, typer.Option(help="auto is half precision on CUDA.")]
Offload = Annotated[
    OffloadChoice | None,
    typer.Option(
        show_default="none",
        help="Weights wait in the CPU's memory: whole models, groups of layers, or (slowest, least memory) each layer.",
    ),
]
VaeTiling = Annotated[
    bool, typer.Option("--vae-tiling", help="Encode and decode large pictures tile by tile: less memory, other pixels.")
]
FitTo = Annotated[
    Fit | None,
    typer.Option("--fit", show_default="as the system does", help="Pictures of other proportions than the result: "
                 "keep their middle, give them a border, or stretch them."),
]  # fmt: skip
WhichPerson = Annotated[
    int | None,
    typer.Option("--person", min=1, show_default="pictures stay whole",
                 help="Cut pictures around one of several people, counted from the left; --models find them."),
]  # fmt: skip
PersonModels = Annotated[
    Path | None,
    typer.Option("--models", metavar="FOLDER", show_default="REFNET_MODELS, or the user's cache",
                 help="What `refnet models fetch` got, for --person."),
]  # fmt: skip
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the result that is there; otherwise that is an error.")
]
FusionChoice = Literal["full", "midup"]


def method_option(task: Task) -> Any:
    """The option --method of a command: one of its systems or their published sets, however it is written."""
    names = names_of(task)
    return typer.Option(
        metavar="SYSTEM", parser=lambda typed: read_method(typed, task), autocompletion=lambda: list(names),
        help=f"Which released model: {', '.join(names)}.",
    )  # fmt: skip


def read_method(typed: str, task: Task) -> str:
    """The system, or published set, that somebody means.

    Args:
        typed: Its name, in any case and with anything between its words: IDM-VTON is idm_vton.
        task: The command.

    Raises:
        ValueError: If the command has no such system; names the command that has it.
    """
    names = names_of(task)
    found = named(typed, names)
    if found is not None:
        return found
    other = named(typed, METHODS)
    where = METHODS[other].task if other is not None else None
    elsewhere = f" {METHODS[other].title} is run by `refnet {where}`." if other is not None and where else ""
    raise ValueError(
        f"{typed!r} is no system of refnet {task}; there are {', '.join(names)}."
        f"{elsewhere or did_you_mean(typed.lower(), names)}"
    )


def only(*systems: str) -> str:
    """The panel of options that only these systems take."""
    return ONLY + ", ".join(systems)


def refuse_others(ctx: typer.Context, method: str) -> None:
    """Refuse options that were typed for another system.

    Args:
        ctx: Of the command.
        method: The system, or a published set of it.

    Raises:
        ValueError: If there is one; names it, and whose it is.
    """
    for parameter in ctx.command.params:
        if not _is_for(parameter, method) and is_typed(ctx, parameter.name or ""):
            systems = parameter.rich_help_panel.removeprefix(ONLY).replace(", ", " and ")  # pyright: ignore
            raise ValueError(f"{parameter.opts[0]} is for {systems}; {method} does not take it.")


def settings_of(ctx: typer.Context, method: str) -> dict[str, Any]:
    """All options as typed or by default, by name, but those of other systems; and what `refnet again` types."""
    own = {name: ctx.params[name] for parameter in ctx.command.params if (name := parameter.name) in ctx.params
           and name not in OF_THE_PLACE and _is_for(parameter, method)}  # fmt: skip
    return own | {"again": _typed_again(ctx)}


OF_THE_PLACE = ("out", "overwrite", "preview", "resume", "settings")
"""Options that say where a result goes, and nothing of what it is."""


def _typed_again(ctx: typer.Context) -> dict[str, Any]:
    """The command, the options that were typed, and the hashes of the files that they name."""
    options: dict[str, Any] = {}
    files: dict[str, str | None] = {}
    for parameter in ctx.command.params:
        name, value = parameter.name or "", ctx.params.get(parameter.name or "")
        if name in OF_THE_PLACE or value is None or not (is_typed(ctx, name) or name == "seed"):
            continue
        several = [_plain(parameter, one, files) for one in (value if isinstance(value, list | tuple) else [value])]
        options[name] = several if isinstance(value, list | tuple) else several[0]
    return {"command": ctx.info_name, "options": options, "files": files}


def _plain(parameter: Any, value: Any, files: dict[str, str | None]) -> Any:
    """A value as JSON has it, paths whole; the files among them are hashed."""
    value = getattr(value, "value", value)  # of a choice
    label, sign, place = str(value).rpartition("=") if PLACES.search(parameter.metavar or "") else ("", "", str(value))
    is_place = isinstance(value, Path) or (PLACES.search(parameter.metavar or "") and Path(place).expanduser().exists())
    if not is_place:
        return value
    whole = portable(place)
    if Path(place).expanduser().is_file():
        files[whole] = file_print(Path(place).expanduser())
    return f"{label}{sign}{whole}"


PLACES = re.compile("PICTURE|FOLDER|FILM|FILE|SOUND|JSON|NPZ|PNG|BANK")
"""Words for files in what an option is given."""


def takes(panel: str, method: str) -> bool:
    """Whether a system, or a published set of one, takes the options of a panel."""
    return not panel.startswith(ONLY) or method.split(".")[0] in panel.removeprefix(ONLY).split(", ")


def own_options(panels: Mapping[str, Mapping[str, Any]], method: str) -> dict[str, Any]:
    """What a system takes of options that stand in panels, by name; what was left open, None, is left out.

    Args:
        panels: Panel to its options, under the names of the calls.
        method: The system, or a published set of it.
    """
    groups = [group for panel, group in panels.items() if takes(panel, method)]
    return {name: value for group in groups for name, value in group.items() if value is not None}


def is_typed(ctx: typer.Context, name: str) -> bool:
    """Whether an option was given, and does not stand at its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _is_for(parameter: Any, method: str) -> bool:
    """Whether a system takes an option."""
    return takes(getattr(parameter, "rich_help_panel", None) or "", method)
