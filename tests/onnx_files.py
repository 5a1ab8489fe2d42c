"""Tiny ONNX files, written by hand: enough of the format (protocol buffers) for networks that tests can foresee."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FLOAT, INT64 = 1, 7


@dataclass
class Network:
    """A graph that grows node by node; every node's first output bears its name."""

    nodes: list[bytes] = field(default_factory=list)
    constants: list[bytes] = field(default_factory=list)

    def add(self, kind: str, inputs: list[str], name: str, **attributes: int | list[int]) -> str:
        """Add a node."""
        node = b"".join(_bytes(1, given.encode()) for given in inputs) + _bytes(2, name.encode())
        node += _bytes(3, name.encode()) + _bytes(4, kind.encode())
        for key, value in attributes.items():
            if isinstance(value, int):
                node += _bytes(5, _bytes(1, key.encode()) + _number(3, value) + _number(20, 2))
            else:
                node += _bytes(5, _bytes(1, key.encode()) + b"".join(_number(8, v) for v in value) + _number(20, 7))
        self.nodes.append(node)
        return name

    def constant(self, array: np.ndarray, name: str) -> str:
        """Add weights (float32) or a shape (int64)."""
        kind = INT64 if array.dtype == np.int64 else FLOAT
        data = array.astype("<i8" if kind == INT64 else "<f4").tobytes()
        tensor = b"".join(_number(1, side) for side in array.shape) + _number(2, kind)
        self.constants.append(tensor + _bytes(8, name.encode()) + _bytes(9, data))
        return name

    def convolve(self, given: str, weights: np.ndarray, bias: np.ndarray, name: str) -> str:
        """A 1 x 1 convolution with weights (out, in)."""
        kernel = self.constant(weights[:, :, None, None].astype(np.float32), f"{name}_weights")
        return self.add("Conv", [given, kernel, self.constant(bias.astype(np.float32), f"{name}_bias")], name,
                        kernel_shape=[1, 1])  # fmt: skip

    def pool(self, given: str, height: int, width: int, name: str) -> str:
        """Means over tiles."""
        return self.add("AveragePool", [given], name, kernel_shape=[height, width], strides=[height, width])

    def reshape(self, given: str, shape: list[int], name: str) -> str:
        """Another shape."""
        return self.add("Reshape", [given, self.constant(np.array(shape, dtype=np.int64), f"{name}_shape")], name)

    def write(self, path: Path, given: tuple[str, list[int]], outputs: list[tuple[str, list[int]]]) -> Path:
        """Write the file."""
        graph = b"".join(_bytes(1, node) for node in self.nodes) + _bytes(2, b"tiny")
        graph += b"".join(_bytes(5, constant) for constant in self.constants)
        graph += _bytes(11, _value(*given)) + b"".join(_bytes(12, _value(*output)) for output in outputs)
        path.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13)))
        return path


def _value(name: str, shape: list[int]) -> bytes:
    """Name and shape of an input or an output."""
    sides = b"".join(_bytes(1, _number(1, side)) for side in shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, FLOAT) + _bytes(2, sides)))


def _number(field_number: int, value: int) -> bytes:
    return _varint(field_number << 3) + _varint(value)


def _bytes(field_number: int, value: bytes) -> bytes:
    return _varint(field_number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += struct.pack("B", value & 127 | 128)
        value >>= 7
    return found + struct.pack("B", value)
