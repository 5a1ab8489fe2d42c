"""What learns, spread over processes: each keeps its share of weights, gradients, their average and optimizer state.

`accelerate launch --use_fsdp` asks for it. PyTorch's FSDP2 gathers the weights for a batch, as one piece, and spreads
the mean of the processes' gradients. Pieces by block would save more, but do not suit links: they call layers of blocks
by themselves, a write pass ends in the midst of a network, and where nothing is read the writer does not run at all, in
one process and not in another. Checkpoints hold whole tensors, so that any number of processes may go on from them.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils import _pytree as pytree

from referencenet.training.config import RunConfig
from referencenet.training.parallel import world_size

OF_ACCELERATE = "ACCELERATE_USE_FSDP"
ASKED = "REFERENCENET_SPREAD"
OFFLOADED = "FSDP_OFFLOAD_PARAMS"


def is_asked() -> bool:
    """Whether this process was launched to hold a share of the weights.

    From the first call on it is hidden from accelerate and transformers: one would spread by blocks, the other would
    read weights in the first process alone.
    """
    if parse_flag_from_env(OF_ACCELERATE):
        os.environ[OF_ACCELERATE], os.environ[ASKED] = "false", "true"
    return parse_flag_from_env(ASKED)


def refuse_what_is_whole(config: RunConfig) -> None:
    """Refuse what needs whole weights where they are to be spread.

    Raises:
        ValueError: If a run has Muon or an 8-bit optimizer, or weights shall lie on the CPU.
    """
    if not is_asked():
        return
    for is_set, what, instead in (
        (bool(config.optimizer.muon), "optimizer.muon needs whole matrices", "set optimizer.muon=[]"),
        (config.optimizer.name == "adamw8bit", "adamw8bit needs whole weights", "set optimizer.name=adamw"),
        (parse_flag_from_env(OFFLOADED), f"{OFFLOADED} is not supported", "launch with --fsdp_offload_params false"),
    ):
        if is_set:
            raise ValueError(
                f"accelerate was launched with FSDP, which spreads weights over processes, but {what}; {instead}."
            )


def spread(whole: nn.Module, device: torch.device) -> FSDPModule:
    """Leave each process its share of what learns; what does not learn stays whole in each.

    Args:
        whole: A pass of it is a pass of all that learns.
        device: Where it is.
    """
    frozen = {parameter for parameter in whole.parameters() if not parameter.requires_grad}
    mesh = init_device_mesh(device.type, (world_size(),))
    return fully_shard(whole, mesh=mesh, reshard_after_forward=False, ignored_params=frozen)  # pyright: ignore[reportReturnType]


@contextmanager
def gathered(whole: nn.Module) -> Generator[None]:
    """Inside, every process has all weights, as they are now; where nothing is spread, nothing happens."""
    if not isinstance(whole, FSDPModule):
        yield
        return
    whole.unshard()
    try:
        yield
    finally:
        whole.reshard()


def whole_again(whole: nn.Module) -> None:
    """Give every process all weights for good, as plain parameters; where nothing is spread, nothing happens."""
    if not isinstance(whole, FSDPModule):
        return
    whole.unshard()
    copies: dict[int, nn.Parameter] = {}  # what two components share stays shared
    for module in whole.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                copy = copies.setdefault(id(parameter), nn.Parameter(parameter.detach().clone()))
                setattr(module, name, copy)


def agreed(loss: Tensor, whole: nn.Module) -> Tensor:
    """The loss, plus zero times what another process's loss depends on and this one's does not.

    So all processes have gradients of the same weights; what nobody used has none, as in a process alone.
    """
    learners = [parameter for parameter in whole.parameters() if parameter.requires_grad]
    reached = _reached(loss)
    own = torch.tensor([id(parameter) in reached for parameter in learners], dtype=torch.uint8, device=loss.device)
    anyone = own.clone()
    distributed.all_reduce(anyone, distributed.ReduceOp.MAX)
    missing = [parameter for parameter, more in zip(learners, (anyone > own).tolist(), strict=True) if more]
    return loss + 0.0 * sum(parameter.sum() for parameter in missing)


def _reached(loss: Tensor) -> set[int]:
    """The ids of the leaves that a result depends on."""
    seen: set[Any] = set()
    coming, leaves = [loss.grad_fn], set[int]()
    while coming:
        node = coming.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        coming += [before for before, _ in node.next_functions]
    return leaves


def in_full(tree: Any, *, wanted: bool) -> Any:
    """The same with whole tensors on the CPU in the place of shares.

    Args:
        tree: Tensors in dictionaries and the like; every process must give its own.
        wanted: Whether this process has a use for them; the others keep nothing.
    """

    def one(tensor: DTensor) -> Tensor | None:
        full = tensor.full_tensor()  # one after the other: a device need not hold all of them
        return full.cpu() if wanted else None

    return pytree.tree_map_only(DTensor, one, tree)


def share(value: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor where a parameter is spread, else the tensor."""
    if not isinstance(like, DTensor):
        return value
    value = value.to(like.device, like.dtype)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def shares(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's saved state with this process's shares of it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def of(number: int, value: Any) -> Any:
        like = parameters[number]
        return share(value, like) if isinstance(value, Tensor) and value.shape == like.shape else value

    kept = {number: {key: of(number, value) for key, value in each.items()} for number, each in state["state"].items()}
    return {**state, "state": kept}
