"""The exponential moving average of weights, by diffusers' `EMAModel`: what a run validates and exports."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.distributed.tensor import DTensor

from referencenet.training.spread import share


class MovingAverage:
    """A slow copy of parameters: until its decay is reached, (1 + n) / (10 + n) is kept at the n-th update.

    Args:
        parameters: What is averaged, by name.
        decay: In [0, 1): share of the old average kept at each update, once the run is long enough.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay is {decay}; expected a number in [0, 1), such as 0.999.")
        self.parameters = dict(parameters)
        first = -1  # counts the updates as above
        at_once = not any(isinstance(parameter, DTensor) for parameter in self.parameters.values())
        self.ema = EMAModel(self.parameters.values(), decay=decay, update_after_step=first, foreach=at_once)  # pyright: ignore[reportArgumentType]

    def update(self) -> None:
        """Take one step towards the parameters as they are now."""
        self.ema.step(self.parameters.values())  # pyright: ignore[reportArgumentType]

    @contextmanager
    def applied(self) -> Generator[None]:
        """Inside, the parameters hold the average; afterwards their own values, bit for bit."""
        own = [parameter.detach().clone() for parameter in self.parameters.values()]
        self.ema.copy_to(self.parameters.values())  # pyright: ignore[reportArgumentType]
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.parameters.values(), own, strict=True):
                    parameter.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """The average by the parameters' names."""
        return dict(zip(self.parameters, self.ema.shadow_params, strict=True))

    def go_on(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Take up a saved average after so many updates."""
        self.ema.optimization_step = updates
        with torch.no_grad():
            for name, own in zip(self.parameters, self.ema.shadow_params, strict=True):
                own.copy_(share(state[name], own))
