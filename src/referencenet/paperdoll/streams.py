"""Random numbers that are the same everywhere and for ever.

NumPy promises the raw output of its bit generators for all versions, but not what `Generator` makes of it; so the world
draws raw 64-bit words of PCG64 and turns them into numbers itself. One stream per seed and aspect: a change in how
hair is drawn from the numbers moves no pose.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Stream:
    """Random draws of one aspect (`"hair"`, `"pose"` ...) of one seed."""

    def __init__(self, aspect: str, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise TypeError(f"seed is {seed!r} ({type(seed).__name__}); expected an integer of 0 or more")
        if seed < 0:
            raise ValueError(f"seed is {seed}; expected an integer of 0 or more")
        self._bits = np.random.PCG64([zlib.crc32(aspect.encode()), int(seed)])

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw a number in [low, high)."""
        return low + (high - low) * ((self._bits.random_raw() >> 11) * 2.0**-53)

    def bell(self, width: float) -> float:
        """Draw a number in (-width, width), values near 0 more often (the mean of three uniforms)."""
        return width * (self.uniform() + self.uniform() + self.uniform() - 1.5) / 1.5

    def chance(self, probability: float) -> bool:
        """Say yes with the given probability."""
        return self.uniform() < probability

    def integer(self, stop: int) -> int:
        """Draw an integer in [0, stop)."""
        return int(self.uniform() * stop)

    def choice(self, options: Sequence[T]) -> T:
        """Draw one of the options, each as likely as the others."""
        return options[self.integer(len(options))]

    def weighted(self, weights: dict[T, float]) -> T:
        """Draw one of the keys, as likely as its weight says."""
        point = self.uniform(0.0, sum(weights.values()))
        for option, weight in weights.items():
            point -= weight
            if point < 0:
                return option
        return next(reversed(weights))
