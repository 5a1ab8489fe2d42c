"""StyleAligned's shared group norms: a picture is normalised together with the first picture of its batch.

An option of the published code of Hertz et al. 2023, used in its example with a picture's style: the statistics of a
group are those of the picture's features and the first one's, side by side. Layer norms look at one token alone, so
sharing them would change nothing. Letters: r rows = halves x pictures (and frames), c channels, (h, w) the feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Never

import torch
from torch import Tensor, nn

from referencenet.links.kind import Kind
from referencenet.links.seats import HookSeat, Occupant
from referencenet.links.sites import Site, norm_sites


@dataclass(frozen=True, kw_only=True)
class SharedNorm(Kind):
    """Normalise every picture of a batch together with the first; for `Link.sharing`."""

    place: ClassVar[str] = "group norms"
    rule: ClassVar[str] = "statistics of own and first picture's features together"

    def candidates(self, unet: nn.Module) -> list[Site]:
        """Every group norm over a picture's features."""
        return norm_sites(unet)

    def seat(self, unet: nn.Module, site: Site) -> AroundSeat:
        """Before and behind the norm."""
        return AroundSeat(unet, site)

    def write(self, seat: Any, writing: Any) -> Never:
        """Nothing is written."""
        raise TypeError(f"SharedNorm() writes no bank (at {seat.site.name}, {writing!r:.80}); use it with share().")

    def read(self, references: Sequence[Any], plan: Any) -> Never:
        """No bank is read."""
        raise TypeError(f"SharedNorm() reads no bank ({len(references)} given, {plan!r:.80}); use it with share().")

    def share(self, halves: int, weights: Sequence[float], weight: float) -> BesideFirst:  # noqa: ARG002 - of tokens
        """Every picture of a half that reads is put beside the first."""
        return BesideFirst([weight > 0 for weight in weights])


@dataclass(frozen=True)
class BesideFirst:
    """Put the first picture's features below each picture's; those of plain halves below themselves.

    Attributes:
        reads: Per guidance half whether it is shared.
    """

    reads: Sequence[bool]

    def __call__(self, features: Tensor) -> Tensor:
        """(r, c, h, w) to (r, c, 2 h, w)."""
        halves = zip(features.chunk(len(self.reads)), self.reads, strict=True)
        beside = [own[:1].expand_as(own) if reads else own for own, reads in halves]
        return torch.cat([features, torch.cat(beside)], dim=2)


class Doubling(Occupant):
    """A forward pre-hook that puts something beside a module's input."""

    def __call__(self, _module: nn.Module, args: tuple[Any, ...]) -> Any:
        """The input as the slot's task makes it."""
        task = self.slot.current
        return None if task is None else (task(args[0]), *args[1:])


class Halving(Occupant):
    """A forward hook that takes away from a module's output what `Doubling` put beside its input."""

    def __call__(self, _module: nn.Module, _args: Any, output: Tensor) -> Any:
        """The upper half of (r, c, 2 h, w)."""
        return None if self.slot.current is None else output[:, :, : output.shape[2] // 2]


class AroundSeat(HookSeat):
    """The place before and behind a module."""

    hook = Halving

    def take(self, undo: ExitStack) -> None:
        """Hook the module on both sides until `undo` closes."""
        super().take(undo)
        undo.callback(self.module.register_forward_pre_hook(Doubling(self.slot)).remove)
