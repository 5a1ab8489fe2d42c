"""The training loop every recipe shares, on accelerate: accumulate, clip, step, average, tell, save, validate.

A recipe says what is trained and what a batch's losses are; `fit` does the rest and can be stopped and started at any
moment: a resumed run computes bit for bit what an unbroken one computes, since batches are drawn from their numbers.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, distributed, nn

from referencenet.training import spread
from referencenet.training.average import MovingAverage
from referencenet.training.checkpoint import RunFolder, State
from referencenet.training.config import RunConfig, meant
from referencenet.training.optimizers import make_optimizers
from referencenet.training.precision import computable, safe_kernels
from referencenet.training.recipe import Recipe, running_statistics, trained_parameters

KINDS = DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU
"""How processes may be launched."""

Batches = Callable[[int], Iterable[Any]]
"""From the number of a batch to that batch and all later ones."""


class Whole(nn.Module):
    """All that learns as one module, so that processes average its gradients as one model's.

    Args:
        recipe: Whose losses a pass gives.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.parts = nn.ModuleDict(recipe.modules)

    def forward(self, batch: Any, stack: ExitStack) -> dict[str, Tensor]:
        """The batch's losses; what they need until `backward` is left to the stack."""
        return stack.enter_context(self.recipe.losses(batch))


class Shared(Whole):
    """The same where processes hold shares of it; a pass does what DDP and accelerate do around one of a whole.

    Args:
        recipe: Whose losses a pass gives.
        autocast: Accelerate's.
    """

    def __init__(self, recipe: Recipe, autocast: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__(recipe)
        self.autocast = autocast
        self.statistics = list(running_statistics(recipe.modules).values())

    def forward(self, batch: Any, stack: ExitStack) -> dict[str, Tensor]:
        """The batch's losses, by the running statistics of the first process."""
        for buffer in self.statistics:
            distributed.broadcast(buffer, 0)
        with self.autocast():
            losses = super().forward(batch, stack)
        return {**losses, "loss": spread.agreed(losses["loss"].float(), self.parts)}


def fit(
    recipe: Recipe,
    folder: str | Path,
    config: RunConfig,
    *,
    batches: Batches = itertools.count,
    stop_after: int | None = None,
    quiet: bool = False,
) -> int:
    """Train a recipe to the end of its run, from wherever the folder's newest checkpoint says it stands.

    Args:
        recipe: What to train. Afterwards its modules hold the moving average, if the run has one.
        folder: Of the run: checkpoints, `log.jsonl`, `sheets/`.
        config: Its `steps` may be changed between runs.
        batches: What the recipe's losses are asked of, in order, from a number on; by default the number itself.
        stop_after: Leave at this step, before the run's end, with a checkpoint.
        quiet: No progress bar.

    Returns:
        The step reached.

    Raises:
        ValueError: If the folder's checkpoint is of another stage, or a loss is no number.
    """
    config = computable(config, recipe.device)
    run, accelerator = RunFolder(folder), make_accelerator(config, recipe.device, folder)
    learner = Learner(recipe, config, accelerator)
    step = first = learner.resume(run)
    end = config.steps if stop_after is None else min(stop_after, config.steps)
    is_main, began, saved = accelerator.is_main_process, time.monotonic(), step
    coming = iter(batches(step * config.accumulate) if step < end else ())
    with _bar(quiet or not is_main) as bar, learner.finishing():
        task = bar.add_task(recipe.name, total=config.steps, completed=step, note="")
        try:
            while step < end:
                record = learner.step(step, coming)
                step += 1
                if step % config.log_every == 0 or step == end:
                    seconds = round((time.monotonic() - began) / (step - first), 4)
                    note = f"loss {learner.tell(run, step, record, seconds):.4f}  {seconds:.2f} s/step"
                    bar.update(task, note=note)
                bar.update(task, completed=step)
                if step % config.save_every == 0 or step == end:
                    learner.save(run, step)
                    saved = step
                if config.validate_every and (step % config.validate_every == 0 or step == end):
                    learner.validate(run, step)
        except KeyboardInterrupt:  # weights and optimizers are those of the last whole step
            if step > saved and not learner.is_spread:  # processes may have been stopped at different steps
                learner.save(run, step)
            raise
    return step


class Learner:
    """A recipe with its optimizers and its moving average, as accelerate runs them.

    Args:
        recipe: What learns.
        config: Of the run.
        accelerator: Of the run.
    """

    def __init__(self, recipe: Recipe, config: RunConfig, accelerator: Accelerator) -> None:
        self.recipe, self.config, self.accelerator = recipe, config, accelerator
        self.is_spread = spread.is_asked() and accelerator.num_processes > 1
        self.whole: Any = (
            spread.spread(Shared(recipe, accelerator.autocast), recipe.device)
            if self.is_spread
            else accelerator.prepare_model(Whole(recipe))
        )
        self.parameters = trained_parameters(recipe.modules)  # behind that: what is spread are other parameters
        self.saved: dict[str, Tensor] = {**self.parameters, **running_statistics(recipe.modules)}
        optimizers = make_optimizers(recipe.modules, config.optimizer)
        self.average = MovingAverage(self.parameters, config.average) if config.average else None
        self.optimizers = {name: accelerator.prepare_optimizer(each) for name, each in optimizers.items()}

    def step(self, step: int, coming: Iterator[Any]) -> list[dict[str, Tensor]]:
        """One optimizer step from the next batches; the losses of each."""
        rate = self.config.optimizer.rate(step, self.config.steps)
        for group in (group for optimizer in self.optimizers.values() for group in optimizer.param_groups):
            group["lr"] = rate
        told = [self._learn(next(coming)) for _ in range(self.config.accumulate)]
        told[-1]["norm"] = self._clipped()
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        if self.average is not None:
            self.average.update()
        return told

    def _learn(self, batch: Any) -> dict[str, Tensor]:
        """One batch forth and back; its losses."""
        with ExitStack() as stack:
            stack.enter_context(self.accelerator.accumulate(self.whole))
            if self.config.precision == "bf16":
                stack.enter_context(safe_kernels(self.recipe.modules.values(), self.recipe.device))
            losses = self.whole(batch, stack)
            if not math.isfinite(float(losses["loss"].detach())):
                raise ValueError("the loss is no longer finite; lower optimizer.learning_rate, or compute in fp32.")
            self.accelerator.backward(losses["loss"])
        return {name: value.detach() for name, value in losses.items()}

    def _clipped(self) -> Tensor:
        """The norm of all gradients, which are clipped to the run's."""
        most = self.config.optimizer.clip or math.inf
        norm: Any = self.accelerator.clip_grad_norm_(self.parameters.values(), most)  # pyright: ignore[reportArgumentType]
        if not math.isfinite(float(norm)) and self.accelerator.scaler is None:
            raise ValueError("gradients are no longer finite; lower optimizer.learning_rate, or compute in fp32.")
        return norm.detach()

    def tell(self, run: RunFolder, step: int, told: list[dict[str, Tensor]], seconds: float) -> float:
        """Log the step's losses, mean of its batches and of all processes; the one that is minimised."""
        norm = float(told[-1].pop("norm"))
        sums = {name: torch.stack([losses[name].float() for losses in told]).mean() for name in told[0]}
        means: Any = self.accelerator.reduce(sums, "mean") if self.accelerator.num_processes > 1 else sums
        record = {name: round(float(value), 6) for name, value in means.items()} | {"norm": round(norm, 4)}
        if self.accelerator.is_main_process:
            run.log({"step": step, **record, "seconds": seconds})
        rate = self.config.optimizer.rate(step - 1, self.config.steps)
        self.accelerator.log({**record, "rate": rate}, step=step)
        return record["loss"]

    def save(self, run: RunFolder, step: int) -> None:
        """Write a checkpoint, by the first process."""
        average = None if self.average is None else self.average.state()
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        is_main = self.accelerator.is_main_process
        weights, average, optimizers = spread.in_full((self.saved, average, optimizers), wanted=is_main)
        if is_main:
            scaler = None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict()
            state = State(step=step, weights=weights, average=average, optimizers=optimizers, scaler=scaler)
            run.save(state, keep=self.config.keep)

    def resume(self, run: RunFolder) -> int:
        """Take the folder's newest checkpoint, if there is one, and give its step.

        Raises:
            ValueError: If it is of other parameters than this stage trains, or of other optimizers.
        """
        state = run.load()
        if state is None:
            return 0
        where = run.checkpoints()[-1]
        load_weights(self.saved, state.weights, where)
        saved = dict(state.optimizers or {})
        if set(saved) != set(self.optimizers):
            raise ValueError(
                f"{where} was trained with {', '.join(sorted(saved))}, but this stage trains with "
                f"{', '.join(sorted(self.optimizers))}; give another folder or remove it."
            )
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(spread.shares(saved[name], optimizer))
        if self.average is not None:
            if state.average is None:
                raise ValueError(f"{where} has no moving average, but this stage keeps one; set average = 0 to go on.")
            self.average.go_on(state.average, state.step)
        if self.accelerator.scaler is not None and state.scaler:
            self.accelerator.scaler.load_state_dict(dict(state.scaler))
        return state.step

    def validate(self, run: RunFolder, step: int) -> None:
        """Write the recipe's sheet as a PNG named by the step, and its scores, of the averaged weights."""
        if not (self.accelerator.is_main_process or self.is_spread):
            return
        applied = nullcontext() if self.average is None else self.average.applied()
        with applied, spread.gathered(self.whole), torch.no_grad(), self.accelerator.autocast():
            if not self.accelerator.is_main_process:
                return
            picture, scores = self.recipe.sheet(), self.recipe.scores()
        if picture is not None:
            sheets = run.path / "sheets"
            sheets.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(sheets / f"{step:06d}.png")
        if scores:
            run.log({"step": step, **{name: round(value, 6) for name, value in scores.items()}})
            self.accelerator.log(dict(scores), step=step)

    @contextmanager
    def finishing(self) -> Generator[None]:
        """Close trackers whatever happens; at a good end, leave the average in the modules, laid out as in files."""
        try:
            yield
        finally:
            for tracker in self.accelerator.trackers:
                tracker.finish()
        if self.average is not None:
            self.average.ema.copy_to(self.parameters.values())  # pyright: ignore[reportArgumentType]
        spread.whole_again(self.whole)
        for module in self.recipe.modules.values():
            module.to(memory_format=torch.contiguous_format)


def make_accelerator(config: RunConfig, device: torch.device, folder: str | Path) -> Accelerator:
    """Accelerate for one run; what an earlier run of this process has set is forgotten.

    Args:
        config: Of the run.
        device: Where the recipe computes.
        folder: Where trackers write.

    Raises:
        ValueError: If half precision is asked for on a CPU, or what needs whole weights where they are to be spread.
    """
    if config.precision == "fp16" and device.type == "cpu":
        raise ValueError("precision is fp16, which CPUs do not train in; use bf16 or fp32.")
    check_trackers(config.trackers)
    spread.refuse_what_is_whole(config)
    AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage] - there is no other way to start again
    accelerator = Accelerator(
        mixed_precision="no" if config.precision == "fp32" else config.precision,
        gradient_accumulation_steps=config.accumulate,
        cpu=device.type == "cpu",
        log_with=list(config.trackers) or None,
        project_dir=str(folder),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # what is dropped learns nothing
    )
    if accelerator.distributed_type not in KINDS:
        raise ValueError(
            f"accelerate was launched with {accelerator.distributed_type.value}, by which links cannot be trained; "
            "launch processes that each hold all weights (--multi_gpu), or a share of them (--use_fsdp)."
        )
    if config.trackers:
        accelerator.init_trackers("tracked")
    return accelerator


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that accelerate does not know or that are not installed.

    Raises:
        ModuleNotFoundError: If one is not installed.
        ValueError: If there is no such tracker.
    """
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"there is no tracker {name!r}{meant(name, map(str, LOGGER_TYPE_TO_CLASS))}")
        packages = {"tensorboard": ("tensorboard", "tensorboardX"), "comet_ml": ("comet_ml",)}.get(name, (name,))
        if not any(find_spec(package) for package in packages):
            raise ModuleNotFoundError(
                f"the tracker {name} is not installed; install {packages[0]}, or leave it out of `trackers`."
            )


def load_weights(parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor], where: Path) -> None:
    """Copy saved weights into trained parameters, all of them or none.

    Args:
        parameters: By `component.name`.
        weights: Likewise.
        where: They lie, for errors.

    Raises:
        ValueError: If names or shapes differ.
    """
    strange = sorted(set(weights) ^ set(parameters))
    if strange:
        side = "holds" if strange[0] in weights else "lacks"
        raise ValueError(
            f"{where} {side} {strange[0]} and {len(strange) - 1} more, unlike what this stage trains; give another "
            "folder or remove it."
        )
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            raise ValueError(
                f"{where} holds {name} of shape {tuple(weights[name].shape)}, but this stage trains "
                f"{tuple(parameter.shape)}; give another folder or remove it."
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(spread.share(weights[name], parameter))


def _bar(quiet: bool) -> Progress:
    """A bar with the loss beside it."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), disable=quiet)
