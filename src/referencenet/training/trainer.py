"""The training loop every recipe shares: optimizer, schedule, moving average, checkpoints, sample sheets, progress.

A recipe says what is trained and what a step's loss is; `fit` does the rest and can be stopped and started at any
moment: a resumed run computes bit for bit what an unbroken one computes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from referencenet.training.average import MovingAverage
from referencenet.training.checkpoint import RunFolder
from referencenet.training.muon import Muon, hidden_weights
from referencenet.training.parallel import average_gradients, rank, world_size
from referencenet.training.precision import Precision, computing_in


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast a stage learns.

    Attributes:
        steps: Optimizer steps of the whole stage.
        learning_rate: After the warm-up.
        warmup: Steps of linear rise.
        cooldown: Share of the steps, at the end, of linear fall to zero.
        decay: Of the moving average.
        weight_decay: Share of the learning rate by which weights shrink in a step.
        clip: Largest norm of a gradient.
        muon: Names of modules whose `hidden_weights` Muon updates; all else is AdamW's.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 200
    cooldown: float = 0.3
    decay: float = 0.999
    weight_decay: float = 0.01
    clip: float = 1.0
    muon: tuple[str, ...] = ()

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        falling = max(1.0, self.cooldown * self.steps)
        return self.learning_rate * min((step + 1) / max(1, self.warmup), 1.0, (self.steps - step) / falling)


class Recipe(Protocol):
    """What a stage trains.

    Attributes:
        name: Of the stage, for logs.
        modules: What is trained, by name.
        device: Where it is trained.
    """

    name: str
    modules: Mapping[str, nn.Module]
    device: torch.device

    def loss(self, step: int) -> dict[str, Tensor]:
        """The step's losses, scalars; the one called `loss` is minimised. Random numbers come from the step alone."""
        ...

    def sheet(self) -> np.ndarray | None:
        """A picture (height, width, 3) uint8 that shows how far the training is, or None."""
        ...


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random numbers of one step of a run, others in every process that trains along."""
    return torch.Generator(device=device).manual_seed((seed * 1_000_003 + step * world_size() + rank()) % 2**63)


def step_kind(seed: int, step: int) -> float:
    """A random number in [0, 1) that is the same in all processes: they wait for each other where steps differ."""
    apart = 715_827_883  # from the numbers that `step_generator` draws
    return float(torch.rand((), generator=torch.Generator().manual_seed((seed * 1_000_003 + step + apart) % 2**63)))


def fit(
    recipe: Recipe,
    folder: str | Path,
    schedule: Schedule,
    *,
    save_every: int = 500,
    sheet_every: int = 500,
    stop_after: int | None = None,
    precision: Precision = "fp32",
    quiet: bool = False,
) -> int:
    """Train a recipe to the end of its schedule, from wherever the folder's state says it stands.

    Args:
        recipe: What to train. Afterwards its modules hold the moving average.
        folder: Of the run: `state.pt`, `log.jsonl`, `sheets/`.
        schedule: Its `steps` may be changed between runs.
        save_every: Steps between checkpoints.
        sheet_every: Steps between sample sheets.
        stop_after: Leave at this step, before the schedule's end, with a checkpoint.
        precision: Of the losses and their gradients; weights are kept and updated in single precision.
        quiet: No progress bar.

    Returns:
        The step reached.
    """
    run = RunFolder(folder)
    parameters = [p for module in recipe.modules.values() for p in module.parameters() if p.requires_grad]
    optimizers = _optimizers(recipe, parameters, schedule)
    average = MovingAverage(parameters, schedule.decay)
    step = _resume(recipe, run, optimizers, average)
    end = schedule.steps if stop_after is None else min(stop_after, schedule.steps)
    with _bar(quiet or rank() > 0) as bar:
        task = bar.add_task(recipe.name, total=schedule.steps, completed=step, note="")
        began, first = time.monotonic(), step
        while step < end:
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = schedule.rate(step)
            with computing_in(precision, recipe.modules.values(), recipe.device):
                losses = recipe.loss(step)
                losses["loss"].backward()
            average_gradients(parameters)
            norm = nn.utils.clip_grad_norm_(parameters, schedule.clip, error_if_nonfinite=True)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            average.update()
            step += 1
            if rank() == 0 and (step % 50 == 0 or step == end):
                record = {name: round(float(value.detach()), 6) for name, value in losses.items()}
                seconds = (time.monotonic() - began) / (step - first)
                run.log({"step": step, **record, "norm": round(float(norm), 4), "seconds": round(seconds, 4)})
                bar.update(task, note=f"loss {record['loss']:.4f}  {seconds:.2f} s/step")
            bar.update(task, completed=step)
            if rank() == 0 and (step % save_every == 0 or step == end):
                run.save(_state(recipe, optimizers, average, step))
            if rank() == 0 and (step % sheet_every == 0 or step == end):
                with average.applied():
                    _save_sheet(recipe, run, step)
    with torch.no_grad():
        torch._foreach_copy_(parameters, average.average)  # pyright: ignore[reportPrivateUsage]
    for module in recipe.modules.values():
        module.to(memory_format=torch.contiguous_format)  # as files hold weights
    return step


def _optimizers(recipe: Recipe, parameters: list[nn.Parameter], schedule: Schedule) -> list[torch.optim.Optimizer]:
    """What updates the parameters, each by one of them."""
    matrices = hidden_weights(recipe.modules[name] for name in schedule.muon)
    taken = {id(weight) for weight in matrices}
    others = [parameter for parameter in parameters if id(parameter) not in taken]
    settings = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay}
    optimizers: list[torch.optim.Optimizer] = [Muon(matrices, **settings)] if matrices else []
    if others:
        optimizers.append(torch.optim.AdamW(others, betas=(0.9, 0.99), fused=True, **settings))
    return optimizers


def _state(
    recipe: Recipe, optimizers: Sequence[torch.optim.Optimizer], average: MovingAverage, step: int
) -> dict[str, object]:
    """All that a later process needs to go on."""
    return {
        "step": step,
        "modules": {name: module.state_dict() for name, module in recipe.modules.items()},
        "optimizers": {type(optimizer).__name__: optimizer.state_dict() for optimizer in optimizers},
        "average": average.state_dict(),
    }


def _resume(recipe: Recipe, run: RunFolder, optimizers: Sequence[torch.optim.Optimizer], average: MovingAverage) -> int:
    """Take the folder's state, if there is one.

    Raises:
        ValueError: If the state is of other modules than the recipe's, or of other optimizers.
    """
    state = run.load(recipe.device)
    if state is None:
        return 0
    if set(state["modules"]) != set(recipe.modules):
        raise ValueError(
            f"{run.state_path} holds the modules {sorted(state['modules'])}, but this stage trains "
            f"{sorted(recipe.modules)}; give another folder or remove the file."
        )
    for name, module in recipe.modules.items():
        try:
            module.load_state_dict(state["modules"][name])
        except RuntimeError as error:
            raise ValueError(
                f"{run.state_path} holds another layout of {name} than this stage trains ({error}); give another "
                "folder or remove the file."
            ) from error
    states: dict[str, dict[str, object]] = state.get("optimizers", {})
    if set(states) != {type(optimizer).__name__ for optimizer in optimizers}:
        raise ValueError(
            f"{run.state_path} was trained with {', '.join(sorted(states)) or 'an earlier version'}, but this stage "
            f"trains with {', '.join(type(o).__name__ for o in optimizers)}; give another folder or remove the file."
        )
    for optimizer in optimizers:
        optimizer.load_state_dict(states[type(optimizer).__name__])
    average.load_state_dict(state["average"])
    return int(state["step"])


def _save_sheet(recipe: Recipe, run: RunFolder, step: int) -> None:
    """Write the recipe's sheet as a PNG named by the step."""
    with torch.no_grad():
        picture = recipe.sheet()
    if picture is not None:
        sheets = run.path / "sheets"
        sheets.mkdir(exist_ok=True)
        Image.fromarray(picture).save(sheets / f"{step:06d}.png")


def _bar(quiet: bool) -> Progress:
    """A bar with the loss beside it."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), disable=quiet)
