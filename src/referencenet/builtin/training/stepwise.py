"""A recipe whose batches are the numbers of steps: it draws what it learns from out of a set that lies in memory."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import numpy as np
from torch import Tensor


class Stepwise:
    """What the built-in model's recipes share."""

    def loss(self, step: int) -> dict[str, Tensor]:
        """The step's losses, scalars; the one called `loss` is minimised. Random numbers come from the step alone."""
        raise NotImplementedError

    @contextmanager
    def losses(self, batch: int) -> Generator[dict[str, Tensor]]:
        """The losses of the step that the batch is called by."""
        yield self.loss(batch)

    def sheet(self) -> np.ndarray | None:
        """None: nothing is shown."""
        return None

    def scores(self) -> Mapping[str, float]:
        """None: the sheets and `refnet benchmark builtin` tell."""
        return {}
