"""Networks in .tflite files, run by LiteRT on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from referencenet.preprocess.model_files import model_file


class LiteNetwork:
    """A network that takes one picture.

    Args:
        folder: Holds its file; or the file itself.
        name: Of the file.
        sizes: Numbers in each of its answers, in their order.
        threads: Of the CPU.

    Raises:
        FileNotFoundError: If the file is missing; says where to get it.
        ValueError: If it is no such network.
        ImportError: If LiteRT is missing.
    """

    def __init__(self, folder: str | Path, name: str, sizes: Sequence[int], threads: int = 2) -> None:
        file = model_file(folder, name)
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(f"{name} needs LiteRT: pip install 'referencenet[preprocess]'.") from error
        try:
            self.network: Any = Interpreter(model_path=str(file), num_threads=threads)
            self.network.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"LiteRT cannot read {file} ({reason}); get the file again.") from error
        self._input = self.network.get_input_details()[0]
        self._outputs = self.network.get_output_details()
        found = [int(np.prod(each["shape"])) for each in self._outputs]
        if found != list(sizes):
            raise ValueError(f"{file} answers with {found} numbers, expected {list(sizes)}: it is another network.")

    @property
    def side(self) -> int:
        """Of its picture in pixels."""
        return int(self._input["shape"][1])

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """What it makes of a picture (side, side, 3), float32 in the range that it was trained with."""
        self.network.set_tensor(self._input["index"], np.ascontiguousarray(pixels[None], dtype=np.float32))
        self.network.invoke()
        return [self.network.get_tensor(each["index"])[0] for each in self._outputs]
