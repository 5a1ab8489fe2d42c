"""Denoising films: all at once, or as a wave that keeps a bounded number of frames, with the same result.

A window's prediction at a step needs its frames at that step, and those come from the windows around it at the step
before. So a film need not be denoised step by step as a whole: while its first frames take their last step, frames
further on take their first. `FilmStream` runs that wave. Every stretch of frames keeps a scheduler of its own, so every
scheduler works. Letters: b samples, c channels, f frames, (h, w) latents.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from referencenet.sampling.processes import ALONE, Processes
from referencenet.sampling.windows import Window, add_prediction

Begin = Callable[[Tensor, Tensor, int], Callable[[Sequence[int]], Tensor]]
"""(scaled latents (b, c, f, h, w), timestep, place of their first frame in the film) to a step: from frames of the film
to their guided prediction (b, c, frames, h, w)."""


def denoise_step(
    predict: Callable[[Sequence[int]], Tensor], like: Tensor, windows: Sequence[Window], processes: Processes = ALONE
) -> Tensor:
    """The weighted sum of all windows' predictions at one step.

    Args:
        predict: Frames of the film to their prediction (b, c, frames, h, w).
        like: Latents of the film, (b, c, f, h, w).
        windows: How the film is cut; none larger than the first.
        processes: Each predicts its share of the windows; all get every prediction.

    Returns:
        (b, c, f, h, w); to be divided by `total_weights`.
    """
    size = len(windows[0].frames)
    jobs = [partial(_predict_run, predict, window.frames, size) for window in windows]
    total = torch.zeros_like(like)
    for window, prediction in zip(
        windows, processes.each(jobs, like[:, :, :1].expand(-1, -1, size, -1, -1)), strict=True
    ):
        add_prediction(total, prediction[:, :, : len(window.frames)], window)
    return total


def _predict_run(predict: Callable[[Sequence[int]], Tensor], frames: Sequence[int], filled_to: int) -> Tensor:
    """Predict some frames of a film."""
    return _filled(predict(frames), filled_to)


def _filled(prediction: Tensor, num_frames: int) -> Tensor:
    """(b, c, f, h, w) with zeros behind it, up to `num_frames`: processes exchange tensors of one shape."""
    return pad(prediction, (0, 0, 0, 0, 0, num_frames - prediction.shape[2]))


@dataclass
class Stretch:
    """Frames [start, stop) on their way: those that a window has and the windows before it have not."""

    start: int
    stop: int
    latents: Tensor
    total: Tensor
    scheduler: Any
    generator: torch.Generator
    step: int = 0


class FilmStream:
    """The wave over a film. Iterating gives finished stretches in order; between two of them its state can be kept.

    A window is ready when the one before it is a step ahead of it and all its frames are at its step. With one process
    the foremost ready window is next, and frames enter when none is ready; with several, as many windows as there are
    processes are predicted at once, and frames enter while fewer are ready. What is added to a frame comes in the
    order of the windows in either case, so the bits are the same, also of a film that other processes have begun.

    Args:
        windows: In order, without wrap-around, none larger than the first.
        scheduler: With its timesteps set; it is copied, never stepped.
        begin: The denoiser.
        admit: Gives the noise of the frames [start, stop), after whatever else they need was read.
        drop_before: Told the first frame that is still needed.
        step_kwargs: Further arguments of the scheduler's step, from a stretch's own random generator.
        seed: Of the stretches' generators.
        predicted: Called after every prediction of a window, whichever process made it.
        processes: Each predicts its share of the windows; all get every stretch.
    """

    def __init__(
        self,
        windows: list[Window],
        *,
        scheduler: Any,
        begin: Begin,
        admit: Callable[[int, int], Tensor],
        drop_before: Callable[[int], None] = lambda _frame: None,
        step_kwargs: Callable[[torch.Generator], Mapping[str, Any]],
        seed: int,
        predicted: Callable[[], None] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.windows = windows
        self.scheduler = scheduler
        self.begin = begin
        self.admit = admit
        self.drop_before = drop_before
        self.step_kwargs = step_kwargs
        self.seed = seed
        self.predicted = predicted
        self.processes = processes
        ends = [*(window.frames[0] for window in windows[1:]), windows[-1].frames[-1] + 1]
        self.bounds = [(window.frames[0], end) for window, end in zip(windows, ends, strict=True)]
        self.reached = [max(i for i, b in enumerate(self.bounds) if b[0] <= w.frames[-1]) for w in windows]
        self.num_admitted = 0
        self.stretches: dict[int, Stretch] = {}  # those on their way, in order

    @property
    def num_frames(self) -> int:
        """Of the film."""
        return self.bounds[-1][1]

    @property
    def num_predictions(self) -> int:
        """How often the denoiser runs for the whole film."""
        return len(self.windows) * len(self.scheduler.timesteps)

    def __iter__(self) -> Iterator[Stretch]:
        """Go on until the film's end."""
        num_steps = len(self.scheduler.timesteps)
        while self.stretches or self.num_admitted < len(self.windows):
            ready = self._ready()
            if len(ready) < self.processes.count and self.num_admitted < len(self.windows):
                self.stretches[self.num_admitted] = self._new(self.num_admitted)
                self.num_admitted += 1
                ready = self._ready()
            if not ready:
                continue
            self._advance(ready[: self.processes.count])
            first = next(iter(self.stretches))
            if self.stretches[first].step == num_steps:  # one at most: the next one's last step waits for it
                done = self.stretches.pop(first)
                self.drop_before(done.stop)
                yield done

    def state(self) -> dict[str, Any]:
        """What is needed to go on in another process: numbers and tensors only."""
        return {
            "num_admitted": self.num_admitted,
            "stretches": {
                str(index): {
                    "latents": stretch.latents.cpu(),
                    "total": stretch.total.cpu(),
                    "step": stretch.step,
                    "generator": stretch.generator.get_state(),
                    "scheduler": self._scheduler_state(stretch.scheduler),
                }
                for index, stretch in self.stretches.items()
            },
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same film."""
        self.num_admitted = state["num_admitted"]
        for index, saved in state["stretches"].items():
            stretch = self._new(int(index))
            stretch.latents = saved["latents"].to(stretch.latents)
            stretch.total = saved["total"].to(stretch.total)
            stretch.step = saved["step"]
            stretch.generator.set_state(saved["generator"])
            for name, value in saved["scheduler"].items():
                setattr(stretch.scheduler, name, _moved(value, stretch.latents.device))
            self.stretches[int(index)] = stretch

    def _ready(self) -> list[int]:
        """Windows that can be predicted now, foremost first."""
        found: list[int] = []
        ahead = len(self.scheduler.timesteps)
        for index, stretch in self.stretches.items():
            last = self.stretches.get(self.reached[index])
            if stretch.step < ahead and last is not None and last.step == stretch.step:
                found.append(index)
            ahead = stretch.step
        return found

    def _advance(self, ready: list[int]) -> None:
        """Predict windows and take their own stretches one step further."""
        jobs = [partial(self._predict, index) for index in ready]
        b, c, _, h, w = self.stretches[ready[0]].latents.shape
        like = self.stretches[ready[0]].latents.new_empty(b, c, len(self.windows[0].frames), h, w)
        for index, prediction in zip(ready, self.processes.each(jobs, like), strict=True):
            self._add(index, prediction)
            stretch = self.stretches[index]
            t = self.scheduler.timesteps[stretch.step]
            stretch.latents = stretch.scheduler.step(
                stretch.total, t, stretch.latents, **self.step_kwargs(stretch.generator), return_dict=False
            )[0]
            stretch.total = torch.zeros_like(stretch.latents)
            stretch.step += 1
            if self.predicted is not None:
                self.predicted()

    def _predict(self, index: int) -> Tensor:
        """A window's prediction, (b, c, first window's frames, h, w)."""
        touched = self._touched(index)
        t = self.scheduler.timesteps[touched[0].step]
        scaled = [stretch.scheduler.scale_model_input(stretch.latents, t) for stretch in touched]
        size = len(self.windows[index].frames)
        frames = self.windows[index].frames
        prediction = self.begin(torch.cat(scaled, dim=2)[:, :, :size], t, frames[0])(frames)
        return _filled(prediction, len(self.windows[0].frames))

    def _add(self, index: int, prediction: Tensor) -> None:
        """Add a window's prediction to every stretch that it touches."""
        window = self.windows[index]
        first, stop = window.frames[0], window.frames[-1] + 1
        for stretch in self._touched(index):
            low, high = stretch.start - first, min(stretch.stop, stop) - first
            part = Window(tuple(range(high - low)), window.weights[low:high])
            add_prediction(stretch.total, prediction[:, :, low:high], part)

    def _touched(self, index: int) -> list[Stretch]:
        """The stretches that a window touches, its own first."""
        return [self.stretches[i] for i in range(index, self.reached[index] + 1)]

    def _new(self, index: int) -> Stretch:
        start, stop = self.bounds[index]
        latents = self.admit(start, stop)
        generator = torch.Generator().manual_seed(frame_seed(self.seed, start, purpose=1))
        total = torch.zeros_like(latents)
        return Stretch(start, stop, latents, total, copy.deepcopy(self.scheduler), generator)

    def _scheduler_state(self, scheduler: Any) -> dict[str, Any]:
        """What a scheduler has gathered since its timesteps were set."""
        fresh, own = vars(self.scheduler), vars(scheduler)
        return {name: value for name, value in own.items() if not _same(value, fresh.get(name))}


def frame_noise(seed: int, frames: range, shape: tuple[int, int, int, int]) -> Tensor:
    """Noise that depends on the seed and each frame's place alone, whatever the film's length.

    Args:
        seed: Of the film.
        frames: Places in the film.
        shape: (b, c, h, w).

    Returns:
        (b, c, frames, h, w), float32, on the CPU.
    """
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(frame_seed(seed, frame))) for frame in frames]
    return torch.stack(noise, dim=2)


def frame_seed(seed: int, frame: int, purpose: int = 0) -> int:
    """A seed for one frame of a film: SplitMix64 (Steele et al. 2014) over the film's seed, the frame and a purpose."""
    mask = 2**64 - 1
    value = (seed + 0x9E3779B97F4A7C15 * (2 * frame + purpose + 1)) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return (value ^ (value >> 31)) >> 1


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and bool(torch.equal(first, second))
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    if type(first).__module__ == "numpy":
        return True  # tables of the configuration
    return type(first) is type(second) and bool(first == second)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return [_moved(part, device) for part in value] if isinstance(value, list) else value
