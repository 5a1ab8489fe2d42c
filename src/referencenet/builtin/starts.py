"""What a training may begin with beside folders: `refnet train --from NAME`."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from referencenet.builtin.start import TASKS, start_pipeline
from referencenet.training.run import STARTS as NAMED
from referencenet.training.run import Starts


def upon_heads(system: str) -> Any:
    """A system grown from weights that have learned heads.

    Args:
        system: Registry name.

    Raises:
        ValueError: If the system's shipped weights do not stand upon those.
    """
    before = TASKS.get(system, ())[:-1]
    if not before:
        able = ", ".join(name for name, tasks in TASKS.items() if len(tasks) > 1)
        raise ValueError(f"{system} does not begin with heads, as {able} do; give --from builtin.")
    return start_pipeline(system, upon=before)


STARTS: Starts = MappingProxyType({
    **NAMED,
    "builtin": start_pipeline,
    "portrait": upon_heads,
})  # fmt: skip
"""`builtin`: a system grown from the shipped weights; `portrait`: from those that have learned heads."""
