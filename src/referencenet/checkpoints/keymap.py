"""Published names to ours, as tables: what becomes of every tensor of a published file, or why it is left out.

Published code drops unknown tensors silently; films with untrained motion modules were the result. Here every key is
mapped or on the short list of ignored ones, and everything else is an error that names the keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


class CheckpointError(ValueError):
    """A published file does not hold what its system needs."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One published tensor that is several of ours, in equal parts.

    Attributes:
        pattern: Regular expression of the published key (after renaming); must match the whole key.
        into: Our keys, in the order of the parts; may refer to groups of the pattern.
        dim: The axis that is cut.
    """

    pattern: str
    into: tuple[str, ...]
    dim: int = 0


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """What becomes of every key of one published file.

    Attributes:
        renames: (regular expression, replacement) pairs; every one is applied to a key, in order.
        splits: Tensors that are cut.
        squeezed: Patterns (of renamed keys) of 1x1 convolutions that are linear layers here: axes of 1 are dropped.
        unbatched: Patterns (of renamed keys) of tables that were published with a leading axis of 1: it is dropped.
        ignored: Pattern of a published key to the reason why it is left out.
    """

    renames: Sequence[tuple[str, str]] = ()
    splits: Sequence[Split] = ()
    squeezed: Sequence[str] = ()
    unbatched: Sequence[str] = ()
    ignored: Mapping[str, str] = field(default_factory=dict[str, str])

    def name(self, key: str) -> str:
        """Our name of a published key."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def reason_ignored(self, key: str) -> str | None:
        """Why a published key is left out; None if it is not."""
        return next((reason for pattern, reason in self.ignored.items() if re.fullmatch(pattern, key)), None)

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published state dict under our names. Tensors are views where they can be.

        Args:
            state: Published key to tensor; one that stands there twice, under two of its names, is taken once.

        Raises:
            CheckpointError: If two keys with different numbers get one name.
        """
        converted: dict[str, Tensor] = {}
        sources: dict[str, str] = {}
        for key, tensor in state.items():
            if self.reason_ignored(key) is not None:
                continue
            for name, part in self._parts(self.name(key), tensor):
                if name in converted and not _is_same(converted[name], part):
                    raise CheckpointError(
                        f"the keys {sources[name]} and {key} both become {name}; the file is of another layout."
                    )
                converted[name], sources[name] = part, key
        return converted

    def _parts(self, name: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
        """A renamed tensor, cut and squeezed."""
        if any(re.fullmatch(pattern, name) for pattern in self.squeezed):
            tensor = tensor.flatten(1) if tensor.ndim > 2 else tensor
        if any(re.fullmatch(pattern, name) for pattern in self.unbatched):
            tensor = tensor.squeeze(0)
        for split in self.splits:
            match = re.fullmatch(split.pattern, name)
            if match is not None:
                names = [match.expand(part) for part in split.into]
                return list(zip(names, tensor.chunk(len(names), dim=split.dim), strict=True))
        return [(name, tensor)]


def _is_same(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers; of key lists without numbers it is not known."""
    return not tensor.is_meta and not other.is_meta and torch.equal(tensor, other)
