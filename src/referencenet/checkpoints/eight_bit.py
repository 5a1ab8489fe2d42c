"""Weights in eight bits: half the size of half precision, for weights that travel inside of the package.

A matrix or convolution is kept as whole numbers from -127 to 127, and a factor for each of its output channels beside
it, under the same name with `SCALE`. Small tensors stay in half precision.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, float32, int8

SCALE = ".eight_bit_scale"
"""Ends the name of a tensor's factors."""
LARGE = 1024
"""Numbers that a tensor has at least to be worth its factors."""


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they are kept: large ones in eight bits, with an error of at most 1/254 of their channel's largest.

    Args:
        tensors: By name; of floating point or whole numbers.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            kept[name] = tensor
        elif tensor.ndim < 2 or tensor.numel() < LARGE:
            kept[name] = tensor.half()
        else:
            rows = tensor.float().flatten(1)
            scale = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
            kept[name] = (rows / scale).round().to(int8).view(tensor.shape)
            kept[name + SCALE] = scale.flatten()
    return kept


def unpacked(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in single precision where they were kept in eight bits; all others as they are.

    Args:
        kept: As `packed` gives them, or any tensors by name.

    Raises:
        ValueError: If factors belong to no tensor, or to one of another shape.
    """
    tensors = {name: tensor for name, tensor in kept.items() if not name.endswith(SCALE)}
    for full, scale in kept.items():
        if full not in tensors:
            name = full.removesuffix(SCALE)
            tensor = tensors.get(name)
            if tensor is None or scale.shape != tensor.shape[:1]:
                shape = None if tensor is None else tuple(tensor.shape)
                raise ValueError(f"{full} has {tuple(scale.shape)} factors, and {name} is {shape}: they do not fit.")
            tensors[name] = tensor.to(float32) * scale.view(-1, *(1,) * (tensor.ndim - 1))
    return tensors
