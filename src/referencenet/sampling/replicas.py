"""A second pipeline on the same weights, for another thread.

What a call changes is the tree of modules (processors, hooks), the scheduler and the pipeline itself; weights it only
reads. A replica has all of the former for itself and shares the latter, so it costs some thousands of Python objects
and no memory of the device.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from diffusers import DiffusionPipeline
from torch import nn

from referencenet.links.seats import is_linked

Pipeline = TypeVar("Pipeline", bound=DiffusionPipeline)


def replica(pipe: Pipeline) -> Pipeline:
    """A pipeline that can be called while another thread calls the first one, with the same results to the bit.

    Weights are shared: whoever changes them in place (training, LoRA) changes them for all. Move or cast the pipeline
    before; `to` on one of them would move the weights of all.

    Args:
        pipe: Any pipeline of diffusers or of this library; not linked, not offloaded, not compiled.

    Returns:
        One of the same class, with the same settings.

    Raises:
        TypeError: If it is no pipeline.
        ValueError: If a network of it is linked now, or has hooks that move weights, or is compiled.
    """
    if not isinstance(pipe, DiffusionPipeline):
        raise TypeError(f"replica() copies a diffusers pipeline, but was given a {type(pipe).__name__}.")
    shared: dict[int, Any] = {}
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):
            _check(name, part)
            shared |= {id(tensor): tensor for tensor in (*part.parameters(), *part.buffers())}
    return copy.deepcopy(pipe, shared)


def _check(name: str, network: nn.Module) -> None:
    """Refuse networks whose copies would reach back to the first one."""
    if is_linked(network):
        raise ValueError(f"the {name} is linked now; make replicas outside of the `with` block, one for each thread.")
    for module in network.modules():
        is_moved = hasattr(module, "_hf_hook") or getattr(module, "_diffusers_hook", None) is not None
        if is_moved or hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:  # pyright: ignore[reportPrivateUsage]
            what = "has hooks that move or cast its weights (offloading)" if is_moved else "is compiled"
            raise ValueError(
                f"the {name} {what}, which a replica on the same weights cannot have as well; make replicas first, or "
                "load the pipeline once more for each thread."
            )
