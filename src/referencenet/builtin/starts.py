"""What a training may begin with beside folders: `refnet train --from NAME`."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from referencenet.builtin.start import UPON_HEADS, start_pipeline
from referencenet.training.run import STARTS as NAMED
from referencenet.training.run import Starts


def upon_heads(system: str) -> Any:
    """A system grown from weights that have learned heads.

    Args:
        system: Registry name.

    Raises:
        ValueError: If the system is not of heads.
    """
    if system not in UPON_HEADS:
        raise ValueError(f"{system} does not begin with heads, as {', '.join(UPON_HEADS)} do; give --from builtin.")
    return start_pipeline(system, upon=UPON_HEADS[system])


STARTS: Starts = MappingProxyType({
    **NAMED,
    "builtin": start_pipeline,
    "portrait": upon_heads,
})  # fmt: skip
"""`builtin`: a system grown from the shipped weights; `portrait`: from those that have learned heads."""
