"""What stands behind an option in the help: PATH, N, TEXT or the choices themselves, and nothing behind a switch."""

import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

PLAIN = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}


def show_plainly(command: Any, ctx: Any) -> None:
    """Give every option of a command, and of its subcommands, that declares none a plain metavar.

    Args:
        command: As typer makes it.
        ctx: The context that it is called in, for its --help.
    """
    hints = _hints(command.callback) if command.callback is not None else {}
    for option in command.params:
        if option.metavar is None:
            option.metavar = metavar_of(hints.get(option.name, bool))
        if option.metavar and option.param_type_name == "argument" and option.metavar in PLAIN.values():
            option.metavar = option.name.upper()
    if (help_option := command.get_help_option(ctx)) is not None:
        help_option.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        show_plainly(inner, ctx)


def metavar_of(hint: Any) -> str:
    """The metavar of a type: of a choice all choices, of a switch none.

    Args:
        hint: As a command annotates its option; several of a kind, or None, count as one.
    """
    parts = [part for part in get_args(hint) if part is not NoneType]
    if get_origin(hint) is Literal:
        return "|".join(map(str, parts))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "|".join(str(choice.value) for choice in hint)
    if parts:
        return metavar_of(parts[0])
    return PLAIN.get(hint, "")


def _hints(callback: Callable[..., Any]) -> dict[str, Any]:
    """Types of a command's options, without what typer is told beside them."""
    return get_type_hints(inspect.unwrap(callback))
