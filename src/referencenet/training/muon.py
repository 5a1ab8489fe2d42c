"""Muon: momentum whose updates turn every direction of a weight by the same amount (Jordan et al., 2024).

A layer's momentum is dominated by a few directions; AdamW follows them and leaves the rare ones, such as a word or a
pattern that few pictures show, behind. Muon replaces it by the nearest matrix with equal singular values, found by five
Newton-Schulz iterations. Updates are as large as AdamW's are (Liu et al., 2025), so that one learning rate suits both.
`torch.optim.Muon` takes matrices only; most weights of a UNet are convolutions, taken here as (out, height * width *
in), and layers of one shape are computed together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from referencenet.training.precision import has_fast_bf16

_ITERATION = 3.4445, -4.7750, 2.0315
"""Coefficients of an iteration, published; they bring singular values near 1, not to it, and fast."""
_SMALLEST = 64
"""Of either side of a matrix; what is narrower, such as a UNet's first and last convolution, is AdamW's."""


def hidden_weights(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Weights of the linear layers and convolutions that are wide enough to be Muon's."""
    layers = [m for module in modules for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    weights = {id(layer.weight): layer.weight for layer in layers if layer.weight.requires_grad}
    return [w for w in weights.values() if min(w.shape[0], w[0].numel()) >= _SMALLEST]


class Muon(torch.optim.Optimizer):
    """Muon for weights of two or more dimensions.

    Args:
        params: Weights, (out, in) or (out, in, height, width).
        lr: Learning rate, as AdamW would take it.
        momentum: Of Nesterov's kind, in [0, 1).
        weight_decay: Share of the learning rate by which a weight shrinks in a step.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every weight that has a gradient; the others stay as they are."""
        if closure is not None:
            raise ValueError("Muon takes no closure; compute the gradients before you call step.")
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape[0], weight[0].numel()].append(weight)
            for weights in alike.values():
                self._step(weights, group["lr"], group["momentum"], group["weight_decay"])

    def _step(self, weights: list[nn.Parameter], lr: float, momentum: float, decay: float) -> None:
        """Update weights of one shape."""
        directions: list[Tensor] = []
        for weight in weights:
            gradient, state = weight.grad, self.state[weight]
            assert gradient is not None
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
            state["momentum"].lerp_(gradient, 1 - momentum)
            directions.append(_channels_last(gradient.lerp(state["momentum"], momentum)).flatten(1))
        updates = orthogonal(torch.stack(directions))
        size = 0.2 * max(updates.shape[1:]) ** 0.5
        for weight, update in zip(map(_channels_last, weights), updates, strict=True):
            weight.mul_(1 - lr * decay).add_(update.view(weight.shape), alpha=-lr * size)


def _channels_last(weight: Tensor) -> Tensor:
    """A view whose last dimension is `in`, as a UNet in channels last has it in memory: nothing is then copied."""
    return weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest matrices whose singular values are all 1: (b, m, n) float32 to the same.

    Computed in bfloat16, as published; where that is slow, in single precision.
    """
    a, b, c = _ITERATION
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(torch.bfloat16 if has_fast_bf16(matrices.device) else torch.float32)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
