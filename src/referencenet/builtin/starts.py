"""What a training may begin with beside folders: `refnet train --from NAME`."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType

from referencenet.builtin.start import start_pipeline
from referencenet.training.run import STARTS as NAMED
from referencenet.training.run import Starts

STARTS: Starts = MappingProxyType({
    **NAMED,
    "builtin": start_pipeline,
    "portrait": partial(start_pipeline, upon=("portrait",)),
})  # fmt: skip
"""`builtin`: a system grown from the shipped weights; `portrait`: from those that have learned heads."""
