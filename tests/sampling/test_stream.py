"""The wave over a film gives what denoising the whole film gives, for every scheduler, also after an interruption."""

import copy
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from referencenet.sampling.processes import ALONE, Processes
from referencenet.sampling.stream import FilmStream, denoise_step, frame_noise, frame_seed
from referencenet.sampling.windows import Windows, total_weights
from tolerances import ROUNDING, relative_error

SHAPE = (1, 2, 3, 2)
SCHEDULERS = [DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler]


def begin(latents: Tensor, t: Tensor, first: int = 0) -> Callable[[Sequence[int]], Tensor]:
    """A stand-in for a denoiser in which every frame of a window sees every other one, its place, and a condition."""

    def predict(frames: Sequence[int]) -> Tensor:
        part = latents[:, :, [frame - first for frame in frames]]
        place = torch.arange(len(frames)).view(-1, 1, 1) * 0.1
        seen = torch.cat([frame_noise(5, range(frame, frame + 1), (1, 4, 3, 2)) for frame in frames], dim=2)
        return torch.tanh(part + part.mean(2, keepdim=True) + seen.mean(1, keepdim=True) + place) * (1 + t / 1000)

    return predict


def stream(scheduler: Any, windows: Windows, num_frames: int) -> FilmStream:
    return FilmStream(
        windows.of(num_frames),
        scheduler=scheduler,
        begin=begin,
        admit=lambda start, stop: frame_noise(3, range(start, stop), SHAPE),
        step_kwargs=lambda _: {},
        seed=3,
    )


def whole(scheduler: Any, windows: Windows, num_frames: int, processes: Processes = ALONE) -> Tensor:
    latents, cut = frame_noise(3, range(num_frames), SHAPE), windows.of(num_frames)
    weights = total_weights(cut, num_frames)
    for t in scheduler.timesteps:
        predict = begin(scheduler.scale_model_input(latents, t), t)
        latents = scheduler.step(denoise_step(predict, latents, cut, processes) / weights, t, latents).prev_sample
    return latents


def set_up(kind: Any, num_steps: int = 5) -> Any:
    scheduler = kind()
    scheduler.set_timesteps(num_steps)
    return scheduler


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize(
    ("size", "overlap", "num_frames"), [(8, 2, 29), (24, 12, 37), (5, 0, 12), (8, 4, 3), (2, 1, 9)]
)
def test_stream_equals_the_whole_film(kind: Any, size: int, overlap: int, num_frames: int) -> None:
    windows = Windows(size=size, overlap=overlap)
    film = stream(set_up(kind), windows, num_frames)
    found = list(film)
    assert [part.start for part in found] == [0, *(part.stop for part in found[:-1])]
    ours = torch.cat([part.latents for part in found], dim=2)
    assert relative_error(ours, whole(set_up(kind), windows, num_frames)) <= ROUNDING


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_resumed_film_has_the_bits_of_an_uninterrupted_one(kind: Any) -> None:
    windows, num_frames = Windows(size=6, overlap=2), 25
    uninterrupted = [part.latents for part in stream(set_up(kind), windows, num_frames)]
    first = stream(set_up(kind), windows, num_frames)
    begun = [part.latents for _, part in zip(range(2), first, strict=False)]
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    second = stream(set_up(kind), windows, num_frames)
    second.resume(torch.load(file, weights_only=True))
    resumed = [*begun, *(part.latents for part in second)]
    assert len(resumed) == len(uninterrupted)
    assert all(map(torch.equal, resumed, uninterrupted))


def test_frames_on_their_way_do_not_grow_with_the_film() -> None:
    def most(num_frames: int) -> int:
        film = stream(set_up(DDIMScheduler, 3), Windows(size=8, overlap=2), num_frames)
        return max(len(film.stretches) for _ in film)

    assert most(300) == most(100) <= 4


def test_scheduler_is_never_stepped() -> None:
    scheduler = set_up(EulerDiscreteScheduler)
    before = copy.deepcopy(vars(scheduler))
    list(stream(scheduler, Windows(size=4, overlap=1), 9))
    assert scheduler.step_index == before["_step_index"]


def test_noise_of_a_frame_depends_on_its_place_alone() -> None:
    assert torch.equal(frame_noise(1, range(9), SHAPE)[:, :, 4:6], frame_noise(1, range(4, 6), SHAPE))
    assert not torch.equal(frame_noise(1, range(1), SHAPE), frame_noise(2, range(1), SHAPE))
    seeds = {frame_seed(seed, frame, purpose) for seed in range(9) for frame in range(99) for purpose in (0, 1)}
    assert len(seeds) == 9 * 99 * 2


@dataclass(frozen=True)
class Watched(Processes):
    """One process that does every job and looks at what several would exchange."""

    def each(self, jobs: Sequence[Callable[[], Tensor]], like: Tensor) -> Iterator[Tensor]:
        results = [job() for job in jobs]
        assert {result.shape for result in results} == {like.shape}
        yield from results

    def as_main(self, tensor: Tensor) -> Tensor:
        return tensor


def test_processes_exchange_tensors_of_one_shape_though_windows_differ() -> None:
    windows, scheduler = Windows(size=8, overlap=2), set_up(DDIMScheduler)
    assert [len(window.frames) for window in windows.of(29)] == [8, 8, 7, 7, 7]
    film = stream(scheduler, windows, 29)
    film.processes = Watched(count=2)
    ours = torch.cat([part.latents for part in film], dim=2)
    assert torch.equal(ours, torch.cat([part.latents for part in stream(scheduler, windows, 29)], dim=2))
    assert torch.equal(whole(scheduler, windows, 29, Watched(count=2)), whole(scheduler, windows, 29))
