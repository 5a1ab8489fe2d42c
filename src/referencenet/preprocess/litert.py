"""Networks in .tflite files, run by LiteRT on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from referencenet.preprocess.model_files import model_file


class LiteNetwork:
    """A network that takes one picture, or one array.

    Args:
        source: The folder of its file, the file itself, or what is in it.
        name: Of the file.
        sizes: Numbers in each of its answers, in their order; further answers are left out.
        threads: Of the CPU.

    Raises:
        FileNotFoundError: If the file is missing; says where to get it.
        ValueError: If it is no such network.
        ImportError: If LiteRT is missing.
    """

    def __init__(self, source: str | Path | bytes, name: str, sizes: Sequence[int], threads: int = 2) -> None:
        file = name if isinstance(source, bytes) else model_file(source, name)
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(f"{name} needs LiteRT: pip install 'referencenet[preprocess]'.") from error
        try:
            content = {"model_content": source} if isinstance(source, bytes) else {"model_path": str(file)}
            self.network: Any = Interpreter(**content, num_threads=threads)
            self.network.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"LiteRT cannot read {file} ({reason}); get the file again.") from error
        self.name = name
        self._input = self.network.get_input_details()[0]
        self._outputs = self.network.get_output_details()[: len(sizes)]
        found = [int(np.prod(each["shape"])) for each in self._outputs]
        if found != list(sizes):
            raise ValueError(f"{file} answers with {found} numbers, expected {list(sizes)}: it is another network.")

    @property
    def side(self) -> int:
        """Of its picture in pixels."""
        return int(self._input["shape"][1])

    def __call__(self, values: np.ndarray) -> list[np.ndarray]:
        """What it makes of a picture (side, side, 3) or an array, float32 in the range that it was trained with."""
        shape = tuple(self._input["shape"])
        if values.shape != shape[1:]:
            raise ValueError(f"{self.name} takes {shape[1:]}, but {values.shape} was given: it is another network.")
        self.network.set_tensor(self._input["index"], np.ascontiguousarray(values[None], dtype=np.float32))
        self.network.invoke()
        answers = (self.network.get_tensor(each["index"]) for each in self._outputs)
        return [answer[0] if answer.shape[0] == 1 else answer for answer in answers]
