"""The bank: what a write pass leaves behind, a value keyed by site name.

A bank holds, per attention site, the input of the self-attention (the output of `norm1`) or, where writer and reader
are one UNet, the keys and values made from it; per AdaIN site, mean and variance. It is a plain value: it can be
sliced, moved, saved and read again without the UNet that wrote it; what else a reader needs of the reference, such as
an image embedding for its cross-attention, may travel in it as context. Letters: b rows, n tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from referencenet.links.bank_file import read_entries, write_entries
from referencenet.links.masks import token_mask
from referencenet.links.table import size, table

Pair = tuple[Tensor, Tensor]

_FORMAT = "referencenet-bank-1"
_PAIRS = {"key": "value", "value": "key", "mean": "variance", "variance": "mean"}
_DIMENSIONS = {"hidden": 3, "key": 3, "value": 3, "mean": 2, "variance": 2}


@dataclass(repr=False)
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

    def masked(self, masks: Tensor) -> ReferenceBank:
        """Inputs times pixel masks at each site's resolution, dilated by one token (Parts2Whole).

        Masked tokens become zeros and are read as such: they take part in the softmax.

        Args:
            masks: (b or 1, 1, H, W) in [0, 1], H x W pixels of the reference.

        Raises:
            ValueError: If the masks are of other shapes or values, or the bank holds more than inputs.
        """
        rows = self.rows
        if masks.ndim != 4 or masks.shape[0] not in (1, rows) or masks.shape[1] != 1:
            raise ValueError(f"masks are {tuple(masks.shape)}; expected ({rows} or 1, 1, height, width).")
        if not bool(((masks >= 0) & (masks <= 1)).all()):  # NaN is neither
            raise ValueError("masks have values outside of [0, 1]; expected 1 where the reference may be seen.")
        if self.projected or self.statistics:
            raise ValueError("keys, values and statistics cannot be masked any more; write with projected=False.")
        shown = {name: x * token_mask(masks.float(), x.shape[1]).to(x) for name, x in self.hidden.items()}
        return ReferenceBank(hidden=shown, context=dict(self.context))

    @property
    def nbytes(self) -> int:
        """The size of all tensors, which is that on disk but for some kilobytes of names."""
        return sum(tensor.nbytes for tensor in self.entries().values())

    def sites(self) -> dict[str, tuple[str, tuple[Tensor, ...]]]:
        """Site name to what is held there, in words and as tensors."""
        return (
            {name: ("input", (tensor,)) for name, tensor in self.hidden.items()}
            | {name: ("keys, values", pair) for name, pair in self.projected.items()}
            | {name: ("mean, variance", pair) for name, pair in self.statistics.items()}
        )

    def __repr__(self) -> str:
        held = list(self.sites().items()) + [(name, ("context", (x,))) for name, x in self.context.items()]
        rows = [("site", "holds", "shape", "dtype", "bytes")]
        for name, (what, tensors) in held:
            shape = " x ".join(map(str, tensors[0].shape))
            dtype = str(tensors[0].dtype).removeprefix("torch.")
            rows.append((name, what, shape, dtype, size(sum(tensor.nbytes for tensor in tensors))))
        return f"{table(rows)}\ntotal: {len(self.sites())} sites, {size(self.nbytes)}"

    def save(self, path: str | Path) -> None:
        """Write the bank as safetensors of about `nbytes`; the file appears whole or not at all.

        Raises:
            ValueError: If the bank is empty.
        """
        if not self.sites():
            raise ValueError("an empty bank cannot be saved; write a reference into it first.")
        write_entries(Path(path), self.entries(), {"format": _FORMAT})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> ReferenceBank:
        """Read a bank that `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a whole bank.
        """
        tensors, _ = read_entries(Path(path), _FORMAT, device)
        return cls.of_entries(tensors, str(path))

    @classmethod
    def of_entries(cls, tensors: dict[str, Tensor], source: str) -> ReferenceBank:
        """The bank whose `entries` are given.

        Args:
            tensors: By their names in a file.
            source: Where they are from, for errors.

        Raises:
            ValueError: If they make up no whole bank.
        """
        bank = cls()
        for key, tensor in tensors.items():
            try:
                bank._place(key, tensor, tensors)
            except KeyError as error:
                raise ValueError(f"{source} is not a complete bank: {error.args[0]}; write it again.") from error
        if len({tensor.shape[0] for tensor in bank._tensors().values()}) != 1:
            raise ValueError(
                f"{source} is not a complete bank: its sites differ in rows, or there is none; write it again."
            )
        return bank

    def entries(self) -> dict[str, Tensor]:
        """Every tensor by its name in a file."""
        return self._tensors() | {f"context/{name}": tensor for name, tensor in self.context.items()}

    def _place(self, key: str, tensor: Tensor, tensors: dict[str, Tensor]) -> None:
        """Put an entry of a file where it belongs; `tensors` are all of the file."""
        part, _, name = key.partition("/")
        dimensions = _DIMENSIONS.get(part, tensor.ndim)
        if tensor.ndim != dimensions:
            raise KeyError(f"its entry {key!r} has {tensor.ndim} dimensions instead of {dimensions}")
        if part in _PAIRS and f"{_PAIRS[part]}/{name}" not in tensors:
            raise KeyError(f"it has {key!r} but not '{_PAIRS[part]}/{name}'")
        if part in _PAIRS and tensors[f"{_PAIRS[part]}/{name}"].shape != tensor.shape:
            raise KeyError(f"{key!r} and '{_PAIRS[part]}/{name}' differ in shape")
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
