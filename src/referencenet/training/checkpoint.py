"""A training run's folder: the state to go on from, written whole or not at all, and what the run has told on the way.

`state.pt` holds the step, weights, optimizer and moving average. Nothing random is kept between steps: every step
draws from a generator seeded by (seed, step), so the step number is the state of all random numbers too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from referencenet.checkpoints.files import read_saved


class RunFolder:
    """The folder of one training stage.

    Args:
        path: Made if it is not there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def state_path(self) -> Path:
        """Where the state lies."""
        return self.path / "state.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write the state; whoever stops the process at any moment finds the old state or the new one."""
        partial = self.path / f".state.{os.getpid()}.partial"
        try:
            torch.save(state, partial)
            partial.replace(self.state_path)
        finally:
            partial.unlink(missing_ok=True)

    def load(self, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """Read the state; None where the run is new.

        Raises:
            ValueError: If the file is no whole state.
        """
        if not self.state_path.is_file():
            return None
        try:
            state = read_saved(self.state_path)
            if not isinstance(state, dict):
                raise ValueError(f"it holds a {type(state).__name__}")
        except ValueError as error:
            raise ValueError(
                f"{self.state_path} is no whole training state ({error}); remove it to begin this stage anew."
            ) from error
        return tree_map(lambda value: value.to(device) if isinstance(value, torch.Tensor) else value, state)

    def log(self, record: dict[str, float | int | str]) -> None:
        """Append one line to `log.jsonl`."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
