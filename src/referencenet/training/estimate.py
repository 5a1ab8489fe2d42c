"""What a stage needs of a GPU's memory, component by component, counted without one.

Weights, gradients, the optimizer's state and autocast's half copies follow from the parameters; what autograd keeps is
counted by running the stage's losses on the meta device, attention as flash attention keeps it. Not counted: the
allocator's slack, work spaces of kernels, and what encoders that do not learn need for a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from referencenet.training.config import RunConfig
from referencenet.training.memory import HALF, outermost_blocks
from referencenet.training.optimizers import STATE_BYTES

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Need:
    """Of a component; bytes.

    Attributes:
        name: Of the component.
        trained: Parameters that learn.
        frozen: Parameters that do not.
        weights: Of both.
        gradients: Of those that learn.
        state: The optimizer's, and the moving average.
        copies: Autocast's half copies of what learns.
    """

    name: str
    trained: int
    frozen: int
    weights: float
    gradients: float
    state: float
    copies: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.state + self.copies


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of a stage; bytes.

    Attributes:
        components: In the pipeline's order.
        kept: What autograd keeps until `backward`.
        again: The most that one block keeps while it runs again; 0: blocks are not checkpointed.
    """

    components: tuple[Need, ...]
    kept: float
    again: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(need.total for need in self.components) + self.kept + self.again

    def __str__(self) -> str:
        """A table in GiB."""
        names = "trained", "frozen", "weights", "grads", "state", "copies", "GiB"
        head = f"{'component':<18}" + "".join(f"{n:>{w}}" for n, w in zip(names, (10, 10, 9, 8, 8, 8, 8), strict=True))
        rows = [
            f"{n.name:<18}{_count(n.trained):>10}{_count(n.frozen):>10}{_gib(n.weights):>9}{_gib(n.gradients):>8}"
            f"{_gib(n.state):>8}{_gib(n.copies):>8}{_gib(n.total):>8}"
            for n in self.components
        ]
        kept = f"{'kept for backward':<63}{'':>8}{_gib(self.kept):>8}"
        again = f"{'largest block, run again':<63}{'':>8}{_gib(self.again):>8}"
        return "\n".join([head, *rows, kept, again, f"{'all':<63}{'':>8}{_gib(self.total):>8}"])


def estimate(recipe: Any, config: RunConfig, size: tuple[int, int] | None = None) -> Estimate:
    """Count what a stage needs on one device.

    Args:
        recipe: A system's, on a pipeline on the meta device, which is good for nothing afterwards.
        config: Of the run.
        size: Width and height in pixels; None: the recipe's.
    """
    needs = tuple(_need(name, m, config) for name, m in recipe.pipe.components.items() if isinstance(m, nn.Module))
    width, height = size or recipe.size
    half = HALF.get(config.precision)
    if half is not None:  # autocast knows no meta device: all is computed as it computes most
        for module in (m for m in recipe.pipe.components.values() if isinstance(m, nn.Module)):
            for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
                tensor.data = tensor.data.to(half)

    def make(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta", dtype=half or torch.float32)

    inputs = recipe.exampled(make, config.batch, (height // recipe.factor, width // recipe.factor))
    kept, again = _kept(recipe, inputs)
    return Estimate(components=needs, kept=kept, again=again if config.checkpointing else 0.0)


def _need(name: str, module: nn.Module, config: RunConfig) -> Need:
    """What a component's parameters need."""
    learn = [p for p in module.parameters() if p.requires_grad]
    rest = [p for p in module.parameters() if not p.requires_grad]
    trained, frozen = sum(p.numel() for p in learn), sum(p.numel() for p in rest)
    state = (4.0 if name in config.optimizer.muon else STATE_BYTES[config.optimizer.name]) * trained
    return Need(
        name=name,
        trained=trained,
        frozen=frozen,
        weights=sum(p.numel() * p.element_size() for p in (*learn, *rest)),
        gradients=4.0 * trained,
        state=state + (4.0 * trained if config.average else 0.0),
        copies=2.0 * trained if config.precision in HALF else 0.0,
    )


def _kept(recipe: Any, inputs: Any) -> tuple[float, float]:
    """Bytes that autograd keeps of a pass, and the most that one block keeps where blocks are not checkpointed."""
    networks = [m for m in recipe.pipe.components.values() if isinstance(m, nn.Module)]
    weights = {_place(p) for network in networks for p in network.parameters()}
    whole = _Counter(weights)
    with whole.counting(), _FlashAttention(), recipe.losses(inputs):
        pass
    inside = _Counter(weights)
    plain = recipe.config
    recipe.config = replace(plain, checkpointing=False)
    try:
        with ExitStack() as stack:
            for network in recipe.to_checkpoint():
                for name, block in ((str(id(b)), b) for b in outermost_blocks(network)):
                    stack.callback(block.register_forward_pre_hook(inside.entering(name)).remove)
                    stack.callback(block.register_forward_hook(inside.leaving).remove)
            with inside.counting(), _FlashAttention(), recipe.losses(inputs):
                pass
    finally:
        recipe.config = plain
    return whole.total(""), max((inside.total(name) for name in inside.seen if name), default=0.0)


class _Counter:
    """Counts the bytes of tensors that autograd saves, each storage once, by the block that saves them."""

    def __init__(self, weights: set[int]) -> None:
        self.weights = weights
        self.seen: dict[str, dict[int, Any]] = {"": {}}
        self.inside = ""

    def counting(self) -> Any:
        """Inside, what is saved is counted."""
        return torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor)

    def _save(self, tensor: Tensor) -> Tensor:
        place = _place(tensor)
        if place not in self.weights:
            self.seen[self.inside].setdefault(place, tensor.untyped_storage())  # kept, so that no other gets its place
        return tensor

    def entering(self, name: str) -> Callable[..., None]:
        """A hook before a block."""

        def enter(_module: nn.Module, _given: Any) -> None:
            self.seen.setdefault(name, {})
            self.inside = name

        return enter

    def leaving(self, _module: nn.Module, _given: Any, _result: Any) -> None:
        """A hook behind a block."""
        self.inside = ""

    def total(self, name: str) -> float:
        """Bytes."""
        return float(sum(storage.nbytes() for storage in self.seen[name].values()))


class _Flash(torch.autograd.Function):
    """Attention as flash attention keeps it: queries, keys, values, output and one number for each query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> tuple[Tensor, ...]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class _FlashAttention(TorchFunctionMode):
    """Inside, fused attention is counted and not computed."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            return _Flash.apply(named["query"], named["key"], named["value"])
        return func(*args, **(kwargs or {}))


def _place(tensor: Tensor) -> int:
    """What tells a tensor's storage from others: on the meta device it has no address."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _gib(count: float) -> str:
    return f"{count / GIB:.2f}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters else "-"
