"""The exponential moving average of weights: what a run samples from and ships."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor


class MovingAverage:
    """A slow copy of parameters.

    Args:
        parameters: What is averaged; their order is the state's.
        decay: In [0, 1): share of the old average kept at each update, once the run is long enough. Before, the
            average follows faster, (1 + n) / (10 + n) after n updates.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay is {decay}; expected a number in [0, 1), such as 0.999.")
        self.decay = decay
        self.updates = 0
        self.parameters = list(parameters)
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the parameters as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)  # pyright: ignore[reportPrivateUsage]

    @contextmanager
    def applied(self) -> Generator[None]:
        """Inside, the parameters hold the average; afterwards their own values, bit for bit."""
        with torch.no_grad():
            own = [parameter.detach().clone() for parameter in self.parameters]
            torch._foreach_copy_(self.parameters, self.average)  # pyright: ignore[reportPrivateUsage]
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, own)  # pyright: ignore[reportPrivateUsage]

    def state_dict(self) -> dict[str, int | list[Tensor]]:
        """What `load_state_dict` takes."""
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: dict[str, int | list[Tensor]]) -> None:
        """Go on from a saved average."""
        self.updates = int(state["updates"])  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            torch._foreach_copy_(self.average, state["average"])  # pyright: ignore
