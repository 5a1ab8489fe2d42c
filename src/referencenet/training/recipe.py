"""What the loop trains: a `Recipe`. It says which modules learn, and what a batch's losses are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


class Recipe(Protocol):
    """What a stage trains.

    Attributes:
        name: Of the stage, for logs.
        modules: Components that are trained, at least in part, by name.
        device: Where they are.
    """

    name: str
    modules: Mapping[str, nn.Module]
    device: torch.device

    def losses(self, batch: Any) -> AbstractContextManager[dict[str, Tensor]]:
        """The batch's losses, scalars; the one called `loss` is minimised, and `backward` runs inside the context.

        So a link still reads, and hooks still lie, where gradient checkpointing computes again. Nothing random comes
        from elsewhere than the batch.
        """
        ...

    def sheet(self) -> np.ndarray | None:
        """A picture (height, width, 3) uint8 that shows how far the training is, or None."""
        ...

    def scores(self) -> Mapping[str, float]:
        """Numbers that show it on what is not learned from."""
        ...


def trained_parameters(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Parameters that require gradients, by `component.name`; what two components share stands once."""
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for component, module in modules.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                found[f"{component}.{name}"] = parameter
    return found


def running_statistics(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """What batch norms remember while they learn, by `component.name`: it is saved with the parameters."""
    return {
        f"{component}.{name}.{key}": buffer
        for component, module in modules.items()
        for name, norm in module.named_modules()
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
        for key, buffer in norm.named_buffers(recurse=False)
    }


def choose_trained(
    components: Mapping[str, Any], train: Iterable[str], freeze: Iterable[str] = ()
) -> dict[str, nn.Module]:
    """Let the parameters that patterns name learn, and no others.

    Args:
        components: A pipeline's, by name; what is no module is passed over.
        train: Regular expressions that match the whole of `component.parameter`.
        freeze: Of those, which do not learn all the same.

    Returns:
        The components of which something learns.

    Raises:
        ValueError: If a pattern matches nothing: a name may be misspelled.
    """
    networks = {name: module for name, module in components.items() if isinstance(module, nn.Module)}
    learn, rest = [re.compile(p) for p in train], [re.compile(p) for p in freeze]
    unused = {p.pattern for p in (*learn, *rest)}
    chosen: dict[str, nn.Module] = {}
    for component, module in networks.items():
        for name, parameter in module.named_parameters():
            full = f"{component}.{name}"
            hits = [p.pattern for p in learn if p.fullmatch(full)]
            held = [p.pattern for p in rest if p.fullmatch(full)]
            unused -= {*hits, *held}
            parameter.requires_grad_(bool(hits) and not held)
            if hits and not held:
                chosen[component] = module
    if unused:
        raise ValueError(
            f"the pattern {sorted(unused)[0]!r} matches no parameter; there are components "
            f"{', '.join(sorted(networks))}, and patterns match the whole of `component.parameter`, as in "
            r"unet\..*motion_modules.*"
        )
    return chosen
