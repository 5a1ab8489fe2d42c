"""Settings by name, as they stand in JSON, to the arguments that would be typed for them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from referencenet.telling import did_you_mean


def arguments_of(command: Any, name: str, settings: Mapping[str, Any]) -> list[str]:
    """Settings as they would be typed.

    Args:
        command: That takes them.
        name: Of the command.
        settings: By name; an option's own name and that of its parameter are both understood.

    Raises:
        ValueError: If the command does not have a setting, or not of this kind.
    """
    parameters = {alias: each for each in command.params for alias in _names(each)}
    options: list[str] = []
    positional: list[str] = []
    for key, value in settings.items():
        parameter = parameters.get(key.replace("-", "_"))
        if parameter is None:
            raise ValueError(f"{name} has no setting {key[:40]!r}.{did_you_mean(key, parameters)}")
        if not parameter.opts[0].startswith("-"):  # an argument
            positional.append(_scalar(key, value))
        elif getattr(parameter, "is_flag", False):
            if not isinstance(value, bool):
                raise ValueError(f"{key} is {_shown(value)}; expected true or false.")
            options += [parameter.opts[0]] if value else parameter.secondary_opts[:1]
        elif isinstance(value, list):
            if not parameter.multiple:
                raise ValueError(f"{key} is {_shown(value)}; expected one value, not a list.")
            options += [f"{_long(parameter)}={_scalar(key, one)}" for one in value]
        else:
            options.append(f"{_long(parameter)}={_scalar(key, value)}")
    return [*options, *(["--", *positional] if positional else [])]


def _names(parameter: Any) -> set[str]:
    """What a setting is called: as the code calls it, and as it is typed."""
    long = {option.lstrip("-").replace("-", "_") for option in parameter.opts if option.startswith("--")}
    return long | {parameter.name or ""}


def _long(parameter: Any) -> str:
    """An option in full."""
    return next(option for option in parameter.opts if option.startswith("--"))


def _scalar(key: str, value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{key} is {_shown(value)}; expected a number or words.")
    text = str(value)
    kind, sign, rest = text.rpartition("=")
    return f"{kind}{sign}{Path(rest).expanduser()}" if rest.startswith("~/") else text


def _shown(value: Any) -> str:
    """The beginning of a value, as JSON."""
    return json.dumps(value)[:60]
