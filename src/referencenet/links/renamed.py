"""Names of the last release that still work, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
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
