"""The command `refnet`: its commands, its version, and what all of them share.

A command lives in the file of its name and is loaded when it is called, so that `refnet --help` answers at once.
"""

import functools
import importlib
import math
import os
import platform
from importlib.metadata import version as version_of
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from referencenet.cli.console import is_misuse, logged, notices_told, tell, tell_error, tell_misuse
from referencenet.cli.metavars import show_plainly
from referencenet.version import __version__

COMMANDS = {
    "demo": "See how it works: four characters, with and without reference, with scores.",
    "generate": "Draw pictures that refer to pictures.",
    "animate": "Animate the person of a picture after a film of poses.",
    "talk": "Let the person of a portrait say what is in a sound.",
    "tryon": "Dress the person of a picture in a garment.",
    "face": "Draw the person of some face photographs.",
    "compose": "Draw a person from pictures of parts, or in a garment.",
    "turn": "Show the person of a portrait from other cameras.",
    "again": "Draw a picture or film again from the settings in it.",
    "batch": "Draw many jobs, by several processes or machines.",
    "preprocess": "Make poses, landmarks and masks of ordinary films and pictures.",
    "models": "Fetch the small networks that make them.",
    "convert": "Turn released weight files into a pipeline folder.",
    "methods": "List the published systems and their state here.",
    "verify": "Compare our outputs with those of the published implementations.",
    "benchmark": "Measure how much of a character the built-in model brings over.",
    "train": "Train a published system on your data, or the built-in model again.",
    "export": "Write what was trained as a pipeline folder.",
    "paperdoll": "Write data sets of drawn characters, in the layouts that the field reads.",
    "ui": "Open a web page with a tab for each task.",
    "comfyui": "Put the nodes into ComfyUI.",
    "doctor": "Say what is installed and found here, and draw two small pictures.",
}

INTERRUPTED = 130
"""The exit status of what its user has ended, as shells know it."""

MODULES = {"models": "model_files"}
"""Command to its file, where that has another name."""


def finite(command: Any) -> Any:
    """The command, which refuses options that are no numbers: the least and the largest value do not."""

    @functools.wraps(command)
    def checked(*args: Any, **options: Any) -> Any:
        for name, value in options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"--{name.replace('_', '-')} is {value}; give a finite number.")
        return command(*args, **options)

    return checked


@functools.cache
def command_of(name: str) -> Any:
    """Load a command of `COMMANDS`."""
    module = importlib.import_module(f"referencenet.cli.{MODULES.get(name, name)}")
    command = typer.main.get_command(module.app)
    if command.callback is not None:
        command.callback = finite(command.callback)
    return command


class Refnet(TyperGroup):
    """Loads a command when it is called, and turns every exception into one line and an exit status."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command in what was typed, and load it."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            command = command_of(name)
            show_plainly(command, ctx)
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        is_debugging = bool(ctx.params.get("debug"))
        if not is_debugging:
            for library in ("DIFFUSERS", "TRANSFORMERS"):
                os.environ.setdefault(f"{library}_VERBOSITY", "error")
        try:
            with notices_told(), logged(is_debugging):
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt as error:
            tell("[bold red]error:[/] interrupted; no unfinished result was left behind.")
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError:  # whoever reads has enough, as `head` has
            raise
        except Exception as error:
            if is_misuse(error):
                raise typer.Exit(tell_misuse(error)) from error
            if is_debugging or hasattr(error, "exit_code"):  # what typer raises and prints itself: help, without words
                raise
            raise typer.Exit(tell_error(error)) from error

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what was typed before the command."""
        show_plainly(self, ctx)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if not is_misuse(error):
                raise
            raise typer.Exit(tell_misuse(error)) from error


app = typer.Typer(
    name="refnet",
    cls=Refnet,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with `refnet demo`. Every command explains itself: `refnet generate --help`.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        others = ", ".join(f"{name} {version_of(name)}" for name in ("torch", "diffusers"))
        line = f"refnet {__version__} (python {platform.python_version()}, {others})"
        Console(highlight=False).print(line, soft_wrap=True)
        raise typer.Exit


@app.callback()
def refnet(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the versions and leave.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", envvar="REFNET_DEBUG", help="Show tracebacks, the log, and libraries' warnings."),
    ] = False,
) -> None:
    """Make pictures that refer to a picture: the same person, somewhere else.

    Works with a small built-in model (nothing to download) and with any Stable Diffusion model of diffusers.
    """


def _listed() -> None:
    """Stand in the list of commands; `Refnet.resolve_command` puts the real command in its place."""


for _name, _summary in COMMANDS.items():
    app.command(_name, help=_summary)(_listed)


def main() -> None:
    """Run the command line."""
    app()
