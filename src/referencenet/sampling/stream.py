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
from typing import Any

import torch
from torch import Tensor

from referencenet.sampling.windows import Window, add_prediction, total_weights

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(scaled latents (b, c, f, h, w), timestep, condition (b, width, f, h, w)) to guided prediction (b, c, f, h, w)."""

StepDone = Callable[[int, Tensor, Tensor], Tensor]
"""(step, timestep, latents) to the latents that go on."""


def denoise_film(latents: Tensor, condition: Tensor, *, windows: list[Window], scheduler: Any, predict: Predict,
                 step_done: StepDone, step_kwargs: Mapping[str, Any], share: Callable[[Tensor], Tensor] | None = None,
                 mine: Sequence[int] | None = None) -> Tensor:  # fmt: skip
    """Denoise a whole film, step by step.

    Args:
        latents: Noise (b, c, f, h, w).
        condition: (b or 1, width, f, h, w).
        windows: How the film is cut.
        scheduler: With its timesteps set.
        predict: The denoiser.
        step_done: Called after every step.
        step_kwargs: Further arguments of the scheduler's step.
        share: Adds up what several processes predicted; None: there is one process.
        mine: Which windows this process predicts; None: all.

    Returns:
        Clean latents (b, c, f, h, w).
    """
    weights = total_weights(windows, latents.shape[2]).to(latents)
    chosen = windows if mine is None else [windows[i] for i in mine]
    for step, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(latents, t)
        total = torch.zeros_like(latents)
        for window in chosen:
            frames = list(window.frames)
            add_prediction(total, predict(scaled[:, :, frames], t, condition[:, :, frames]), window)
        total = total if share is None else share(total)
        latents = scheduler.step(total / weights, t, latents, **step_kwargs, return_dict=False)[0]
        latents = step_done(step, t, latents)
    return latents


@dataclass
class Stretch:
    """Frames [start, stop) on their way: those that a window has and the windows before it have not."""

    start: int
    stop: int
    latents: Tensor
    condition: Tensor
    total: Tensor
    scheduler: Any
    generator: torch.Generator
    step: int = 0


class FilmStream:
    """The wave over a film. Iterating gives finished stretches in order; between two of them its state can be kept.

    Args:
        windows: In order, without wrap-around.
        scheduler: With its timesteps set; it is copied, never stepped.
        predict: The denoiser.
        admit: Gives noise and condition of the frames [start, stop).
        step_kwargs: Further arguments of the scheduler's step, from a stretch's own random generator.
        seed: Of the stretches' generators.
    """

    def __init__(
        self,
        windows: list[Window],
        *,
        scheduler: Any,
        predict: Predict,
        admit: Callable[[int, int], tuple[Tensor, Tensor]],
        step_kwargs: Callable[[torch.Generator], Mapping[str, Any]],
        seed: int,
    ) -> None:
        self.windows = windows
        self.scheduler = scheduler
        self.predict = predict
        self.admit = admit
        self.step_kwargs = step_kwargs
        self.seed = seed
        ends = [*(window.frames[0] for window in windows[1:]), windows[-1].frames[-1] + 1]
        self.bounds = [(window.frames[0], end) for window, end in zip(windows, ends, strict=True)]
        self.reach = max(self._reached(i) - i for i in range(len(windows)))
        self.tick = 0
        self.stretches: dict[int, Stretch] = {}

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
        lag = max(1, self.reach)
        while self.tick < len(self.windows) + lag * num_steps:
            if self.tick < len(self.windows):
                self.stretches[self.tick] = self._new(self.tick)
            done: Stretch | None = None
            for step in range(num_steps):
                index = self.tick - self.reach - lag * step
                if 0 <= index < len(self.windows):
                    self._advance(index)
                    if step == num_steps - 1:
                        done = self.stretches.pop(index)
            self.tick += 1
            if done is not None:
                yield done

    def state(self) -> dict[str, Any]:
        """What is needed to go on in another process: numbers and tensors only."""
        return {
            "tick": self.tick,
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
        self.tick = state["tick"]
        for index, saved in state["stretches"].items():
            stretch = self._new(int(index))
            stretch.latents = saved["latents"].to(stretch.latents)
            stretch.total = saved["total"].to(stretch.total)
            stretch.step = saved["step"]
            stretch.generator.set_state(saved["generator"])
            for name, value in saved["scheduler"].items():
                setattr(stretch.scheduler, name, _moved(value, stretch.latents.device))
            self.stretches[int(index)] = stretch

    def _advance(self, index: int) -> None:
        """Predict a window and take its own stretch one step further."""
        window, stretch = self.windows[index], self.stretches[index]
        touched = [self.stretches[i] for i in range(index, self._reached(index) + 1)]
        t = self.scheduler.timesteps[stretch.step]
        first, stop = window.frames[0], window.frames[-1] + 1
        scaled = [s.scheduler.scale_model_input(s.latents, t) for s in touched]
        prediction = self.predict(
            torch.cat(scaled, dim=2)[:, :, : stop - first],
            t,
            torch.cat([s.condition for s in touched], dim=2)[:, :, : stop - first],
        )
        for other in touched:
            low, high = other.start - first, min(other.stop, stop) - first
            part = Window(tuple(range(high - low)), window.weights[low:high])
            add_prediction(other.total, prediction[:, :, low:high], part)
        stretch.latents = stretch.scheduler.step(
            stretch.total, t, stretch.latents, **self.step_kwargs(stretch.generator), return_dict=False
        )[0]
        stretch.total = torch.zeros_like(stretch.latents)
        stretch.step += 1

    def _new(self, index: int) -> Stretch:
        start, stop = self.bounds[index]
        latents, condition = self.admit(start, stop)
        generator = torch.Generator().manual_seed(frame_seed(self.seed, start, purpose=1))
        total = torch.zeros_like(latents)
        return Stretch(start, stop, latents, condition, total, copy.deepcopy(self.scheduler), generator)

    def _reached(self, index: int) -> int:
        """The last stretch that a window touches."""
        last = self.windows[index].frames[-1]
        return max(i for i, (start, _) in enumerate(self.bounds) if start <= last)

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
