"""A run's folder: checkpoints, each whole or not there at all, and what the run has told on the way.

A checkpoint is a folder `step-00000500`: trained weights and their moving average (safetensors), the optimizers' state,
and `state.json`. Nothing random is kept: every batch is drawn from its number, so the step is the state of all random
numbers too.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from referencenet.checkpoints.files import read_saved, read_state
from referencenet.inputs import read_json, read_json_lines

BROKEN = OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError
"""What reading a damaged file raises."""

NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, kw_only=True)
class State:
    """What a later process goes on from.

    Attributes:
        step: Optimizer steps that are done.
        weights: Trained parameters by `component.name`.
        average: Their moving average; None: the run has none.
        optimizers: By name, each as its `state_dict` gives it; None where only weights were read.
        scaler: Of the loss in half precision.
    """

    step: int
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor] | None = None
    optimizers: Mapping[str, Any] | None = None
    scaler: Mapping[str, Any] | None = None


class RunFolder:
    """The folder of a stage's run.

    Args:
        path: Made when something is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def checkpoints(self) -> list[Path]:
        """The whole checkpoints, oldest first."""
        if not self.path.is_dir():
            return []
        return sorted(folder for folder in self.path.iterdir() if NAME.fullmatch(folder.name))

    def save(self, state: State, *, keep: int = 2) -> Path:
        """Write a checkpoint; whoever stops the process at any moment finds it whole or not at all.

        Args:
            state: Of the run.
            keep: Checkpoints that stay, this one among them.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for left in self.path.glob(".step-*"):  # of a process that was stopped
            shutil.rmtree(left, ignore_errors=True)
        final = self.path / f"step-{state.step:08d}"
        partial = self.path / f".{final.name}.{uuid.uuid4().hex[:8]}"
        partial.mkdir()
        try:
            save_file(_plain(state.weights), partial / "weights.safetensors")
            if state.average is not None:
                save_file(_plain(state.average), partial / "average.safetensors")
            torch.save({"optimizers": state.optimizers, "scaler": state.scaler}, partial / "optimizers.pt")
            (partial / "state.json").write_text(json.dumps({"step": state.step}) + "\n", encoding="utf-8")
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in self.checkpoints()[:-keep]:
            shutil.rmtree(old)
        return final

    def load(self, *, weights_only: bool = False) -> State | None:
        """Read the newest checkpoint, on the CPU; None where there is none.

        Args:
            weights_only: Without what only a run that goes on needs.

        Raises:
            ValueError: If it is damaged.
        """
        found = self.checkpoints()
        if not found:
            if (self.path / "state.pt").is_file():
                raise ValueError(f"{self.path} holds a run of an earlier version (state.pt); give another folder.")
            return None
        folder = found[-1]
        try:
            step = int(read_json(folder / "state.json", "the state of a run")["step"])
            average = folder / "average.safetensors"
            further: dict[str, Any] = {}
            if not weights_only:
                further = read_saved(folder / "optimizers.pt")
            return State(
                step=step,
                weights=read_state(folder / "weights.safetensors"),
                average=read_state(average) if average.is_file() else None,
                **further,
            )
        except BROKEN as error:
            raise ValueError(
                f"{folder} is not a complete checkpoint ({error}); remove it to go on from an older one."
            ) from error

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Append one line to `log.jsonl`."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(record)) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """What the run has told."""
        path = self.path / "log.jsonl"
        return [record for _, record in read_json_lines(path, "what the run told")] if path.is_file() else []


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
