"""The golden rule: weights and inputs of a parity case are functions of their names.

A golden case stores no weights. The published implementation and ours both fill every parameter with
`seeded(f"{case}/{component}/{key}", shape)` and draw every input with `seeded(f"{case}/input/{name}", shape, kind)`,
so a case is a manifest and its outputs. NumPy's PCG64 is seeded with the CRC-32 of the name; the numbers are
the same on every platform. Buffers (position tables, schedules) keep their constructor's values.
"""

import math
import zlib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch

Kind = Literal["weight", "gain", "bias", "normal", "uniform"]
"""Distributions: three for parameters, two for inputs."""


def parameter_kind(name: str, num_dimensions: int) -> Kind:
    """Distribution of a parameter: matrices are weights, vectors ending in ".weight" gains, others biases."""
    if num_dimensions >= 2:
        return "weight"
    return "gain" if name.endswith(".weight") else "bias"


def seeded(name: str, shape: Sequence[int], kind: Kind | None = None) -> np.ndarray:
    """Draw the array that belongs to a name.

    Args:
        name: full name, e.g. "reference_only-attn/unet/conv_in.weight".
        shape: any shape; () is a scalar.
        kind: "weight" (standard normal / sqrt(fan in), fan in = product of shape[1:]), "gain" (1 + 0.1 normal),
            "bias" (0.1 normal), "normal" (standard normal) or "uniform" ([0, 1)). None: `parameter_kind` decides.

    Returns:
        float32 array of the given shape.

    Raises:
        ValueError: the kind is none of the five.
    """
    shape = tuple(int(size) for size in shape)
    kind = parameter_kind(name, len(shape)) if kind is None else kind
    if kind not in get_args(Kind):
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(get_args(Kind))}; correct it in case.json")
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode("utf-8"))))
    if kind == "uniform":
        return generator.random(shape, dtype=np.float32)
    normal = generator.standard_normal(shape, dtype=np.float32)
    if kind == "weight":
        return np.asarray(normal / math.sqrt(max(1, math.prod(shape[1:]))), dtype=np.float32)
    if kind == "gain":
        return np.asarray(1 + 0.1 * normal, dtype=np.float32)
    if kind == "bias":
        return np.asarray(0.1 * normal, dtype=np.float32)
    return np.asarray(normal)


def seeded_input(case: str, name: str, shape: Sequence[int], kind: Kind = "normal") -> torch.Tensor:
    """Draw an input of a case as a float32 tensor of the given shape."""
    return torch.from_numpy(seeded(f"{case}/input/{name}", shape, kind))


def fill(module: torch.nn.Module, case: str, component: str) -> None:
    """Fill all parameters of a module in place by the golden rule; buffers keep their values.

    Args:
        module: any module; its parameters' names are the keys of the rule.
        case: id of the case.
        component: name of the module within the case, e.g. "unet".
    """
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            values = torch.from_numpy(seeded(f"{case}/{component}/{key}", parameter.shape))
            parameter.copy_(values.reshape(parameter.shape))
