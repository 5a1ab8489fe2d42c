"""A command in this process: its arguments as they would be typed, its words caught, its errors as one line."""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import typer

from referencenet.cli.app import command_of
from referencenet.cli.console import error_line, misuse_line, notices_told
from referencenet.cli.loaded import ModelNeeded, Models, models_from, no_model

NOTE = "note: "


class JobError(ValueError):
    """A job that cannot be drawn as it stands; its text is a line."""


def checked(name: str, arguments: Sequence[str], out: Path) -> tuple[dict[str, Any], str]:
    """Run a command up to the point where it needs its model.

    Args:
        name: Of the command.
        arguments: As typed, without `--out`.
        out: A place that is free; nothing is written.

    Returns:
        The values of its options by name, and what decides its model.

    Raises:
        JobError: If the command refuses them.
    """
    values: dict[str, Any] = {}
    try:
        with _words_caught() as said:
            _run(name, arguments, out, no_model, said, values)
    except ModelNeeded as needed:
        return values, needed.source
    raise JobError(f"{name} draws nothing with these settings.")


def drawn(name: str, arguments: Sequence[str], out: Path, models: Models) -> list[str]:
    """Run a command.

    Args:
        name: Of the command.
        arguments: As typed, without `--out`.
        out: Of the result.
        models: Where the command gets its model from.

    Returns:
        What the command noted.

    Raises:
        JobError: If it fails; says why.
    """
    with _words_caught() as said:
        _run(name, arguments, out, models, said, {})
    return [line.removeprefix(NOTE) for line in said.getvalue().splitlines() if line.startswith(NOTE)]


def _run(
    name: str, arguments: Sequence[str], out: Path, models: Models, said: io.StringIO, values: dict[str, Any]
) -> None:
    command = command_of(name)
    try:
        with notices_told(), models_from(models):
            context = command.make_context(name, [f"--out={out}", *arguments])
            values.update(context.params)
            with context:
                command.invoke(context)
    except ModelNeeded:
        raise
    except typer.Exit as left:
        if left.exit_code:
            raise JobError(" ".join(said.getvalue().split())) from left
    except Exception as error:
        is_misuse = hasattr(error, "format_message") and getattr(error, "message", "")
        raise JobError(misuse_line(error) if is_misuse else error_line(error)) from error


@contextmanager
def _words_caught() -> Generator[io.StringIO]:
    """What a command says while the block runs, instead of on the terminal."""
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()), warnings.catch_warnings():
        yield said
