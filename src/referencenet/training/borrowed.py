"""A module's pass replaced for the length of a context: the one place where that is done, since it is given back."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def passing(module: nn.Module, forward: Callable[..., Any]) -> Generator[None]:
    """Inside, the module's pass is another; its hooks run as before.

    Args:
        module: Whose pass.
        forward: Takes what the module's own takes.
    """
    before = module.__dict__.get("forward")
    module.forward = forward  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
