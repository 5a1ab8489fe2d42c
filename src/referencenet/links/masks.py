"""A mask at every resolution a UNet works in: pixels of a picture become tokens or feature positions of a site."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, log2

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
        raise ValueError(wrong_count(count, self.maps))

    def to(self, device: torch.device) -> Pyramid:
        """The same on another device."""
        return Pyramid({size: level.to(device) for size, level in self.maps.items()})


def wrong_count(tokens: int, sizes: Iterable[object]) -> str:
    """What to say where a mask has no level for a site's tokens."""
    known = ", ".join(str(size) for size in sizes)
    return (
        f"a site has {tokens} tokens, but the mask was made for the sizes {known}. Either it was made for other "
        "latents, or something inside the UNet merges tokens (tomesd), over which no mask can be laid: undo the "
        "merging, or read without masks."
    )


def token_mask(masks: Tensor, count: int) -> Tensor:
    """Pixel masks at the resolution of a site, dilated by one token (Parts2Whole, as published in code).

    Nearest pixels, then the sum of each 3 x 3 neighbourhood, clamped: a soft mask grows also in value.

    Args:
        masks: (b, 1, H, W) in [0, 1], of the picture.
        count: n, tokens of the site.

    Returns:
        (b, n, 1).

    Raises:
        ValueError: If no shrinking of the picture by a power of two has so many tokens.
    """
    height, width = masks.shape[-2:]
    side = 2 ** ceil(log2(height * width / count) / 2)
    grid = (ceil(height / side), ceil(width / side))
    if grid[0] * grid[1] != count:
        raise ValueError(
            f"a mask of {height} x {width} pixels shrinks to {grid[0]} x {grid[1]} tokens, but the site has {count}; "
            "give masks of the size of the reference."
        )
    small = F.interpolate(masks, size=grid)
    return F.conv2d(small, masks.new_ones(1, 1, 3, 3), padding=1).clamp(0, 1).flatten(2).transpose(1, 2)
