"""How much the seams between windows show, in films whose denoiser is known exactly.

Frames follow a Gaussian process, so the best prediction from a window's frames is a matrix, and so is denoising a film:
its rows are what comes of unit noise in each frame, and the films' covariance is its product with itself.
"""

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from referencenet.pipelines.portraits import PORTRAIT_SCHEDULE
from referencenet.sampling.stream import denoise_step
from referencenet.sampling.windows import Window, Windows, total_weights

FRAMES, STEPS = 64, 30


def jumps(windows: list[Window], length: float) -> Tensor:
    """Mean squared differences of neighbouring frames, (frames - 1,), of films that change within `length` frames."""
    scheduler = DDIMScheduler(**PORTRAIT_SCHEDULE)
    scheduler.set_timesteps(STEPS)

    def predict(latents: Tensor, t: Tensor) -> Tensor:
        """The velocity expected from noisy frames (b, 1, f, 1, 1) alone."""
        frames = latents.shape[2]
        place = torch.arange(frames, dtype=latents.dtype)
        one = torch.eye(frames, dtype=latents.dtype)
        film = torch.exp(-((place - place.unsqueeze(1)) ** 2) / (2 * length**2)) + 1e-6 * one  # (f, f)
        clean, noise = (
            scheduler.alphas_cumprod[t].to(latents).sqrt(),
            (1 - scheduler.alphas_cumprod[t].to(latents)).sqrt(),
        )
        noisy = clean**2 * film + noise**2 * one
        velocity = clean * noise * torch.linalg.solve(noisy, one - film)
        return torch.einsum("bcfhw,fg->bcghw", latents, velocity)

    unit = torch.eye(FRAMES, dtype=torch.float64).view(FRAMES, 1, FRAMES, 1, 1)
    made, weights = unit, total_weights(windows, FRAMES)
    for t in scheduler.timesteps:
        total = denoise_step(lambda frames, now=made, t=t: predict(now[:, :, list(frames)], t), made, windows)
        made = scheduler.step(total / weights, t, made).prev_sample
    return made.flatten(1).diff(dim=1).square().sum(0)


@pytest.mark.parametrize("length", [4.0, 8.0])
def test_seams_of_the_default_windows_show_half_as_much_as_the_published_ones(length: float) -> None:
    undivided = jumps([Window(tuple(range(FRAMES)), (1.0,) * FRAMES)], length)

    def worst(windows: Windows) -> float:
        return float((jumps(windows.of(FRAMES), length) / undivided).max())

    assert worst(Windows()) <= 0.5 * worst(Windows(published=True))
    assert worst(Windows()) <= 0.7 * worst(Windows(overlap=1))
