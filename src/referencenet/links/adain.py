"""The AdaIN link: a block's output takes the reference's mean and variance, channel by channel.

Reference-AdaIN (sd-webui ControlNet, 2023), after AdaIN (Huang and Belongie 2017, eq. 8): y = (x - mean) / std *
std_ref + mean_ref. The statistics are those of the write pass, which itself is not renormalised. Letters: r rows, b
bank rows, c channels, (h, w) the feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import WriteDone
from referencenet.links.rows import RowPlan

MIN_VARIANCE = 1e-6  # as published in Reference-AdaIN; eq. 8 of AdaIN itself states none


@dataclass(frozen=True, kw_only=True)
class AdaIN:
    """Read references in the mean and variance of block outputs.

    Attributes:
        weight: How many blocks take part, in [0, 1]: those whose doubled rank is at most it, the mid block first.
    """

    weight: float = 1.0

    def chooses(self, rank: float) -> bool:
        """Whether a site of this rank takes part; weight 0 chooses none."""
        return self.weight > 0 and self.weight >= 2 * rank


class StatisticsTask(Protocol):
    """What a site does during a pass with the feature map (r, c, h, w)."""

    def __call__(self, features: Tensor) -> Tensor:
        """The features to go on with, of the same shape."""
        ...


class StatisticsHook:
    """A forward hook that hands a block's output to its task; without a task it changes nothing."""

    def __init__(self) -> None:
        self.task: StatisticsTask | None = None

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        """Replace the features in the module's output, whatever shape the output has."""
        if self.task is None:
            return None
        if isinstance(output, Tensor):
            return self.task(output)
        if isinstance(output, tuple):
            return (self.task(output[0]), *output[1:])
        output.sample = self.task(output.sample)
        return output


@dataclass
class WriteStatistics:
    """Leave mean and variance (r, c) in a bank."""

    site: str
    bank: ReferenceBank
    is_last: bool
    mask: dict[tuple[int, int], Tensor] | None = None

    def __call__(self, features: Tensor) -> Tensor:
        """Write; the features stay as they are."""
        mask = None if self.mask is None else self.mask[features.shape[-2], features.shape[-1]]
        self.bank.statistics[self.site] = statistics(features, mask)
        if self.is_last:
            raise WriteDone
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


def _map(vector: Tensor) -> Tensor:
    """(r, c) to (r, c, 1, 1)."""
    return vector[:, :, None, None]


def _std(variance: Tensor) -> Tensor:
    return variance.clamp(min=MIN_VARIANCE).sqrt()
