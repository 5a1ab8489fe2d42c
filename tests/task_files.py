"""A face landmarker's `.task` bundle with tiny networks of the released interface, whose answers tests can foresee."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from referencenet.preprocess.face_landmarker import NUM_SCORES, NUM_WITH_IRISES, SCORED
from referencenet.preprocess.mediapipe import NEAR_LAYERS
from referencenet.preprocess.task_file import BLENDSHAPES, DETECTOR, GEOMETRY, LANDMARKS

SIDE = 256  # of the network of landmarks


class Tiny:
    """A .tflite model of fully connected layers on the mean of its input: answer = weights @ mean + bias.

    Args:
        shape: Of the input, (1, ...).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.model: Any = schema.ModelT()
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.outputs = [], [], []
        self.graph, self.model.subgraphs = graph, [graph]
        graph.inputs = [self._tensor(shape)]

    def _tensor(self, shape: tuple[int, ...], values: np.ndarray | None = None) -> int:
        tensor: Any = schema.TensorT()
        tensor.shape, tensor.name = list(shape), f"t{len(self.graph.tensors)}"
        tensor.type = schema.TensorType.INT32 if values is not None and values.dtype == np.int32 else 0
        tensor.buffer = 0
        if values is not None:
            buffer: Any = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _operator(self, kind: int, inputs: list[int], shape: tuple[int, ...], options: tuple[int, Any]) -> int:
        code: Any = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = 1
        self.model.operatorCodes.append(code)
        operator: Any = schema.OperatorT()
        operator.opcodeIndex, operator.inputs = len(self.model.operatorCodes) - 1, inputs
        operator.outputs = [self._tensor(shape)]
        operator.builtinOptionsType, operator.builtinOptions = options
        self.graph.operators.append(operator)
        return operator.outputs[0]

    def answer(self, bias: np.ndarray, weights: np.ndarray | None = None) -> Tiny:
        """Add an answer of len(bias) numbers: bias + weights @ the input, flat; without weights the bias alone."""
        (given,) = self.graph.inputs
        count = int(np.prod(self.graph.tensors[given].shape))
        kinds, options = schema.BuiltinOperator, schema.BuiltinOptions
        if weights is None:  # the input's first number, times nothing
            begin, size = (np.zeros(1, np.int32), np.ones(1, np.int32))
        else:
            begin, size = (np.zeros(1, np.int32), np.array([count], np.int32))
        target = self._tensor((1,), np.array([count], np.int32))
        reshaped: Any = schema.ReshapeOptionsT()
        reshaped.newShape = [count]
        flat = self._operator(kinds.RESHAPE, [given, target], (count,), (options.ReshapeOptions, reshaped))
        parts = [flat, self._tensor((1,), begin), self._tensor((1,), size)]
        part = self._operator(kinds.SLICE, parts, (int(size[0]),), (options.SliceOptions, schema.SliceOptionsT()))
        row: Any = schema.ReshapeOptionsT()
        row.newShape = [1, int(size[0])]
        target = self._tensor((2,), np.array(row.newShape, np.int32))
        part = self._operator(kinds.RESHAPE, [part, target], (1, int(size[0])), (options.ReshapeOptions, row))
        table = np.zeros((len(bias), int(size[0])), np.float32) if weights is None else weights.astype(np.float32)
        inputs = [part, self._tensor(table.shape, table), self._tensor(bias.shape, bias.astype(np.float32))]
        made: Any = schema.FullyConnectedOptionsT()
        done = self._operator(kinds.FULLY_CONNECTED, inputs, (1, len(bias)), (options.FullyConnectedOptions, made))
        self.graph.outputs.append(done)
        return self

    def content(self) -> bytes:
        """The file."""
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def write_task(path: Path, landmarks: np.ndarray, weights: np.ndarray, mesh: np.ndarray, **changes: bytes) -> Path:
    """Write a bundle that finds one face in the middle of every picture.

    Args:
        path: Of the bundle.
        landmarks: (478, 3) that are answered, in pixels of the network's 256.
        weights: (52, 2 x 146): scores are these times x and y of the landmarks that the network takes.
        mesh: (468, 3), the canonical face; weights of its points are 1 / (1 + number) at every 20th.
        changes: Content of files, instead.
    """
    cells = sum((128 // stride) ** 2 * count for stride, count in NEAR_LAYERS)
    boxes, logits = np.zeros((cells, 16)), np.full(cells, -9.0)
    middle = 16 * 8 * 2 + 8 * 2  # of the first layer, whose cell (8, 8) begins at 64 pixels
    boxes[middle, :8] = (-4, -4, 64, 64, -14, -10, 6, -10)  # a square of half the picture, level eyes
    logits[middle] = 9
    files = {
        DETECTOR: Tiny((1, 128, 128, 3)).answer(boxes.ravel()).answer(logits).content(),
        LANDMARKS: Tiny((1, SIDE, SIDE, 3)).answer(landmarks.ravel()).answer(np.array([5.0])).content(),
        BLENDSHAPES: Tiny((1, len(SCORED), 2)).answer(np.zeros(NUM_SCORES), weights).content(),
        GEOMETRY: geometry(mesh),
    }
    assert landmarks.shape == (NUM_WITH_IRISES, 3)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | changes).items():
            if content:
                archive.writestr(name, content)
    return path


def geometry(mesh: np.ndarray) -> bytes:
    """Metadata as protocol buffers, by hand: field 1 the mesh, 2 the weighted points, and one that is not read."""
    vertices = np.column_stack([mesh, np.zeros((len(mesh), 2))]).astype("<f4")
    numbers = b"".join(b"\x1d" + value.tobytes() for value in vertices.ravel())
    points = b""
    for number in range(0, len(mesh), 20):
        point = b"\x08" + _varint(number) + b"\x15" + np.array(1 / (1 + number), "<f4").tobytes()
        points += b"\x12" + _varint(len(point)) + point
    return b"\x0a" + _varint(len(numbers)) + numbers + points + b"\x18\x01"


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])
