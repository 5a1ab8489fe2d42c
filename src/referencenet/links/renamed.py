"""Names of the last release that still work, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any


def renamed(module: str, names: Mapping[str, Any]) -> Callable[[str], Any]:
    """A module's `__getattr__` for names that changed.

    Args:
        module: The module's own name.
        names: Old name to what it is called now.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        now = names[name]
        warnings.warn(f"{module}.{name} is now called {now.__name__}; the old name goes with the next release.",
                      DeprecationWarning, stacklevel=2)  # fmt: skip
        return now

    return find


class Former:
    """An attribute under its former name.

    Args:
        now: What it is called now.
    """

    def __init__(self, now: str) -> None:
        self.now = now

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        if instance is None:
            return self
        self._warn(instance)
        return getattr(instance, self.now)

    def __set__(self, instance: Any, value: Any) -> None:
        self._warn(instance)
        setattr(instance, self.now, value)

    def _warn(self, instance: Any) -> None:
        _tell(f"{type(instance).__name__}.{self.name}", self.now, stacklevel=4)


def takes_former_names(**names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A constructor's decorator: arguments under former names still arrive, with a warning.

    Args:
        names: Former name to what the argument is called now.
    """

    def decorate(construct: Callable[..., None]) -> Callable[..., None]:
        @wraps(construct)
        def constructed(self: Any, *args: Any, **kwargs: Any) -> None:
            for former, now in names.items():
                if former in kwargs:
                    _tell(f"{type(self).__name__}'s {former}", now, stacklevel=4)
                    kwargs[now] = kwargs.pop(former)
            construct(self, *args, **kwargs)

        return constructed

    return decorate


def _tell(former: str, now: str, stacklevel: int) -> None:
    warnings.warn(f"{former} is called {now} now; the old name goes with the next release.", FutureWarning,
                  stacklevel=stacklevel)  # fmt: skip
