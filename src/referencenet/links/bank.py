"""The bank: what a write pass leaves behind, a value keyed by site name.

A bank holds, per attention site, the input of the self-attention (the output of `norm1`) or, where writer and reader
are one UNet, the keys and values made from it; per AdaIN site, mean and variance. It is a plain value: it can be
sliced, moved, saved and read again without the UNet that wrote it; what else a reader needs of the reference, such as
an image embedding for its cross-attention, may travel in it as context. Letters: b rows, n tokens, c channels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Pair = tuple[Tensor, Tensor]

_FORMAT = "referencenet-bank-1"
_PAIRS = {"key": "value", "value": "key", "mean": "variance", "variance": "mean"}


@dataclass
class ReferenceBank:
    """What one reference offers to a reader.

    Attributes:
        hidden: Site name to the self-attention's input, (b, n, c).
        projected: Site name to the reader's (keys, values), each (b, n, c), where the writer was the reader itself.
        statistics: Site name to (mean, biased variance) over the picture, each (b, c).
        context: What a system reads of the reference elsewhere, by a name of its own; of any shape.
    """

    hidden: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    projected: dict[str, Pair] = field(default_factory=dict[str, Pair])
    statistics: dict[str, Pair] = field(default_factory=dict[str, Pair])
    context: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    @property
    def rows(self) -> int:
        """Number of rows b, the same at every site.

        Raises:
            ValueError: If the bank is empty or its sites disagree.
        """
        counts = {tensor.shape[0] for tensor in self._tensors().values()}
        if len(counts) != 1:
            raise ValueError(
                f"a bank needs one number of rows at all its sites, but this one has {sorted(counts) or 'no site'}."
            )
        return counts.pop()

    def map(self, function: Callable[[Tensor], Tensor]) -> ReferenceBank:
        """A new bank with `function` applied to every tensor."""
        return ReferenceBank(
            hidden={name: function(value) for name, value in self.hidden.items()},
            projected={name: (function(k), function(v)) for name, (k, v) in self.projected.items()},
            statistics={name: (function(mean), function(var)) for name, (mean, var) in self.statistics.items()},
            context={name: function(value) for name, value in self.context.items()},
        )

    def joined(self) -> ReferenceBank:
        """One row of all rows' tokens behind each other: several references of one size that are read together.

        Raises:
            ValueError: If the bank holds statistics, which have no tokens.
        """
        if self.statistics:
            raise ValueError("a bank of AdaIN statistics has no tokens to join; give its references one by one.")
        return self.map(lambda tensor: tensor.flatten(0, 1).unsqueeze(0))  # (1, b n, c)

    def forget(self, site: str) -> None:
        """Let go of what a site holds; it is free when nobody else keeps it."""
        for part in (self.hidden, self.projected, self.statistics):
            part.pop(site, None)

    def to(self, *args: torch.device | torch.dtype | str) -> ReferenceBank:
        """A copy on another device or in another dtype, as `Tensor.to`."""
        return self.map(lambda tensor: tensor.to(*args))

    def save(self, path: str | Path) -> None:
        """Write the bank as safetensors; the file appears whole or not at all.

        Raises:
            ValueError: If the bank is empty.
        """
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in self._tensors().items()}
        if not tensors:
            raise ValueError("an empty bank cannot be saved; write a reference into it first.")
        tensors |= {f"context/{name}": tensor.detach().contiguous().cpu() for name, tensor in self.context.items()}
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            save_file(tensors, partial, metadata={"format": _FORMAT})
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> ReferenceBank:
        """Read a bank that `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a whole bank.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no bank file at {path}; write one with ReferenceBank.save.")
        bank = cls()
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                found = (file.metadata() or {}).get("format")
                if found != _FORMAT:
                    raise ValueError(f"{path} is no reference bank: its format is {found!r}, expected {_FORMAT!r}.")
                tensors = {key: file.get_tensor(key) for key in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"{path} is no whole safetensors file ({error}); write the bank again.") from error
        for key, tensor in tensors.items():
            try:
                bank._place(key, tensor, tensors)
            except KeyError as error:
                raise ValueError(f"{path} is no whole bank: {error.args[0]}; write it again.") from error
        return bank

    def _place(self, key: str, tensor: Tensor, tensors: dict[str, Tensor]) -> None:
        """Put an entry of a file where it belongs; `tensors` are all of the file."""
        part, _, name = key.partition("/")
        if part in _PAIRS and f"{_PAIRS[part]}/{name}" not in tensors:
            raise KeyError(f"it has {key!r} but not '{_PAIRS[part]}/{name}'")
        if part == "hidden":
            self.hidden[name] = tensor
        elif part == "key":
            self.projected[name] = (tensor, tensors[f"value/{name}"])
        elif part == "mean":
            self.statistics[name] = (tensor, tensors[f"variance/{name}"])
        elif part == "context":
            self.context[name] = tensor
        elif part not in _PAIRS:
            raise KeyError(f"its entry {key!r} is unknown")

    def _tensors(self) -> dict[str, Tensor]:
        """What sites hold, by its name in a file."""
        named = {f"hidden/{name}": tensor for name, tensor in self.hidden.items()}
        for (first, second), pairs in ((("key", "value"), self.projected), (("mean", "variance"), self.statistics)):
            for name, (a, b) in pairs.items():
                named |= {f"{first}/{name}": a, f"{second}/{name}": b}
        return named
