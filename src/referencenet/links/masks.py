"""A mask at every resolution a UNet works in: pixels of a picture become tokens or feature positions of a site."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Pyramid:
    """A mask by feature-map size.

    Attributes:
        maps: (height, width) of a level to its map (height, width), each value the share in [0, 1] of white below it.
    """

    maps: dict[tuple[int, int], Tensor]

    @classmethod
    def of(cls, mask: Tensor, size: tuple[int, int]) -> Pyramid:
        """Shrink a mask to the latents' size and every halving of it.

        Args:
            mask: (height, width) in [0, 1].
            size: (height, width) of the latents.

        Raises:
            ValueError: If the mask is black: nothing would be left to read.
        """
        if mask.ndim != 2 or not bool(((mask >= 0) & (mask <= 1)).all()):
            raise ValueError(f"a mask is (height, width) with values in [0, 1], but this one is {tuple(mask.shape)}.")
        if not bool(mask.any()):
            raise ValueError(
                "the mask is black everywhere: white marks what may be read; use strength=0 to read nothing."
            )
        maps: dict[tuple[int, int], Tensor] = {}
        height, width = size
        while (height, width) not in maps:
            maps[height, width] = F.adaptive_avg_pool2d(mask[None, None].float(), (height, width))[0, 0]
            height, width = -(-height // 2), -(-width // 2)
        return cls(maps)

    def tokens(self, count: int) -> Tensor:
        """The map of the level with `count` positions, row by row: (count,).

        Raises:
            ValueError: If no level has as many.
        """
        for (height, width), level in self.maps.items():
            if height * width == count:
                return level.flatten()
        raise ValueError(
            f"a site has {count} tokens, but the mask was made for the sizes {sorted(self.maps)}; make it "
            "for the latents' size."
        )

    def to(self, device: torch.device) -> Pyramid:
        """The same on another device."""
        return Pyramid({size: level.to(device) for size, level in self.maps.items()})
