"""Modules that are imported when something of them is first used: a command checks what was typed before torch loads.

A file that needs one names it at its top, so that everybody sees on what it depends:

    if TYPE_CHECKING:
        from referencenet.cli import run
    else:
        (run,) = later("referencenet.cli.run")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def later(*names: str) -> tuple[Any, ...]:
    """Stand-ins of modules.

    Args:
        names: Of the modules, in full.

    Returns:
        One for each, which has the module's names; the first that is asked for imports it.
    """
    return tuple(_Later(name) for name in names)


class _Later(ModuleType):
    """A module that is not imported yet."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def front_door(package: str, homes: Mapping[str, Iterable[str]]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose files are imported alone: a name is imported when it is first used.

    Args:
        package: Its name.
        homes: File of it to the public names that it defines.
    """
    home = {name: file for file, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(sorted(home))}")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    return get
