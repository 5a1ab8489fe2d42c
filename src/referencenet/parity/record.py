"""What runs of golden cases give: outputs by name, what modules give inside, the shapes that cases store.

Letters: b films, c channels, f frames, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from referencenet.parity.cases import Case


class Produced(NamedTuple):
    """What a runner hands back: outputs by name, and by name a note or the reason why an output is left out."""

    outputs: Mapping[str, Tensor]
    notes: Mapping[str, str]


Runner = Callable[[Case], Produced]


def fold(clip: Tensor) -> Tensor:
    """(b, c, f, h, w) to (b f, c, h, w)."""
    return clip.transpose(1, 2).flatten(0, 1)


def unfold(frames: Tensor, num_frames: int) -> Tensor:
    """(b f, c, h, w) to (b, c, f, h, w)."""
    return frames.unflatten(0, (-1, num_frames)).transpose(1, 2)


def cut(case: Case, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs of which the case may store less than all: the first entries along every axis."""

    def first(name: str, value: Tensor) -> Tensor:
        expected = case.expected.get(name)
        if expected is None or expected.ndim != value.ndim:
            return value
        return value[tuple(slice(size) for size in expected.shape)]

    return {name: first(name, value) for name, value in outputs.items()}


@contextmanager
def each_output(
    network: nn.Module, names: Mapping[str, str], kept: dict[str, Tensor], *, joins: bool = False
) -> Generator[None]:
    """Keep what the named modules last gave, under the names given for them; of several results the first.

    Args:
        network: Which has the modules.
        names: Module to name.
        kept: Where to.
        joins: Put the rows of each run behind those of the runs before it: of passes that run one by one.
    """

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            kept[name] = torch.cat([kept[name], first]) if joins and name in kept else first

        return hook

    handles = [network.get_submodule(path).register_forward_hook(keep(name)) for path, name in names.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def observed(
    network: nn.Module, names: Mapping[str, str], *inputs: Any, **options: Any
) -> tuple[Any, dict[str, Tensor]]:
    """What a network gives for its inputs, and what the named modules in it gave, as `each_output` keeps it."""
    kept: dict[str, Tensor] = {}
    with each_output(network, names, kept):
        result = network(*inputs, **options)
    return result, kept
