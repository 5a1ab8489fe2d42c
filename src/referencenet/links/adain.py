"""The AdaIN link: a block's output takes the reference's mean and variance, channel by channel.

Reference-AdaIN (sd-webui ControlNet, 2023), after AdaIN (Huang and Belongie 2017, eq. 8): y = (x - mean) / std *
std_ref + mean_ref. The statistics are those of the write pass, which itself is not renormalised. Letters: r rows, b
bank rows, c channels, (h, w) the feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from referencenet.links.kind import Kind
from referencenet.links.reading import ReadBank
from referencenet.links.rows import RowPlan
from referencenet.links.seats import HookSeat
from referencenet.links.sites import Site, adain_sites, check_weight
from referencenet.links.writing import Writing

MIN_VARIANCE = 1e-6  # as published in Reference-AdaIN; eq. 8 of AdaIN itself states none


@dataclass(frozen=True, kw_only=True)
class AdaIN(Kind):
    """Read references in the mean and variance of block outputs.

    Attributes:
        weight: How many blocks take part, in [0, 1]: those whose doubled rank is at most it, the mid block first.
    """

    place: ClassVar[str] = "features"
    kept: ClassVar[str] = "statistics of features"
    rule: ClassVar[str] = "own features with the reference's mean and variance"

    weight: float = 1.0

    def candidates(self, unet: nn.Module) -> list[Site]:
        """Every block output that can be renormalised."""
        return adain_sites(unet)

    def chooses(self, site: Site) -> bool:
        """Whether a site takes part; weight 0 chooses none."""
        return self.weight > 0 and self.weight >= 2 * site.rank

    def check(self) -> None:
        """The weight lies in [0, 1]."""
        check_weight(self, self.weight)

    def check_plan(self, plan: RowPlan) -> None:
        """No row reads zeros."""
        if any(section.reads_zeros for section in plan.sections):
            raise ValueError(
                "AdaIN cannot read zeros: a variance of zero erases the features; let those rows read nothing."
            )

    def seat(self, unet: nn.Module, site: Site) -> HookSeat:
        """Behind the block."""
        return HookSeat(unet, site)

    def reader(self, site: Site) -> str:  # noqa: ARG002 - the same everywhere
        """A block's output."""
        return "output"

    def write(self, seat: HookSeat, writing: Writing) -> WriteStatistics:
        """Mean and variance are written."""
        return WriteStatistics(seat.site.name, writing)

    def take(self, seat: HookSeat, reads: Sequence[ReadBank]) -> list[ReferenceStatistics]:
        """Every bank's statistics at the site."""
        return [_statistics_of(seat.site.name, read) for read in reads]

    def read(self, references: Sequence[ReferenceStatistics], plan: RowPlan) -> ReadStatistics:
        """The features are renormalised."""
        return ReadStatistics(references, plan)


@dataclass
class WriteStatistics:
    """Leave mean and variance (r, c) in a bank."""

    site: str
    writing: Writing

    def __call__(self, features: Tensor) -> Tensor:
        """Write; the features stay as they are."""
        readable = self.writing.readable
        mask = None if readable is None else readable.maps[features.shape[-2], features.shape[-1]]
        self.writing.bank.statistics[self.site] = statistics(features, mask)
        self.writing.done_at(self.site)
        return features


@dataclass(frozen=True)
class ReferenceStatistics:
    """One reference at one AdaIN site.

    Attributes:
        mean: (b, c).
        variance: (b, c).
        weight: Its share when several references are averaged.
        amount: How much it is read, in [0, 1]: a number, or per size a map (h, w).
    """

    mean: Tensor
    variance: Tensor
    weight: float = 1.0
    amount: float | dict[tuple[int, int], Tensor] = 1.0


@dataclass
class ReadStatistics:
    """Renormalise the rows of the plan with the references' averaged statistics."""

    references: Sequence[ReferenceStatistics]
    plan: RowPlan

    def __call__(self, features: Tensor) -> Tensor:
        """(r, c, h, w) to the same shape."""
        frames = features.shape[0] // self.plan.rows
        parts: list[Tensor] = []
        done = 0
        for section in self.plan.sections:
            start, stop = section.start * frames, section.stop * frames
            own = features[start:stop]
            readers = (stop - start) // (section.bank_stop - section.bank_start)
            bank = slice(section.bank_start, section.bank_stop)
            parts += [features[done:start], own.lerp(self._renormalise(own, bank, readers), section.amount)]
            done = stop
        return torch.cat([*parts, features[done:]])

    def _renormalise(self, features: Tensor, bank: slice, readers: int) -> Tensor:
        """The mean over levels u in [0, 1] of AdaIN toward the references whose amount is above u."""
        own_mean, own_variance = statistics(features)
        normal = (features - _map(own_mean)) / _std(_map(own_variance))
        size = (features.shape[-2], features.shape[-1])
        amounts = torch.stack([
            r.amount[size].to(features) if isinstance(r.amount, dict) else features.new_tensor(r.amount).expand(size)
            for r in self.references
        ])  # (references, h, w)  # fmt: skip
        total = torch.zeros_like(features)
        previous = torch.zeros_like(amounts[0])
        for level in amounts.sort(dim=0).values:
            seen = (amounts >= level).to(features.dtype)
            weights = seen * features.new_tensor([r.weight for r in self.references]).view(-1, 1, 1)
            weights = (weights / weights.sum(0)).unsqueeze(1).unsqueeze(1)  # (references, 1, 1, h, w)
            target_mean, target_variance = torch.zeros_like(total), torch.zeros_like(total)
            for reference, weight in zip(self.references, weights, strict=True):
                target_mean = target_mean + weight * _map(reference.mean[bank].repeat_interleave(readers, 0))
                variance_of_one = reference.variance[bank].repeat_interleave(readers, 0)
                target_variance = target_variance + weight * _map(variance_of_one)
            total = total + (level - previous) * (normal * _std(target_variance) + target_mean)
            previous = level
        return total + (1 - previous) * features


def statistics(features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the picture.

    Args:
        features: (r, c, h, w).
        mask: (h, w) weights >= 0 of the pixels; None counts all alike.

    Returns:
        Both (r, c).
    """
    if mask is None:
        variance, mean = torch.var_mean(features, dim=(2, 3), correction=0)
        return mean, variance
    share = (mask / mask.sum()).to(features)
    mean = (features * share).sum(dim=(2, 3))
    return mean, ((features - _map(mean)).square() * share).sum(dim=(2, 3))


def _statistics_of(name: str, read: ReadBank) -> ReferenceStatistics:
    """A bank's statistics at one site."""
    mean, variance = read.bank.statistics[name]
    amount: float | dict[tuple[int, int], Tensor] = read.strength
    if read.visible is not None:
        amount = {size: level.to(mean.device) * read.strength for size, level in read.visible.maps.items()}
    return ReferenceStatistics(mean, variance, read.weight, amount)


def _map(vector: Tensor) -> Tensor:
    """(r, c) to (r, c, 1, 1)."""
    return vector[:, :, None, None]


def _std(variance: Tensor) -> Tensor:
    return variance.clamp(min=MIN_VARIANCE).sqrt()
