"""DDIM's inversion (Song et al. 2021, arXiv 2010.02502, section 4.3) of a film: from clean latents to their noise.

The steps of DDIM backwards, each with the prediction at its own end, without guidance. Letters: b samples, c channels,
f frames, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from diffusers import DDIMInverseScheduler
from torch import Tensor

from referencenet.sampling.stream import denoise_step
from referencenet.sampling.windows import Window, total_weights


def inverted(
    predict: Callable[[Tensor, Any], Tensor], latents: Tensor, scheduler: Any, windows: Sequence[Window], steps: int
) -> Iterator[Tensor]:
    """Give the latents behind every step.

    Args:
        predict: Latents (b, c, frames, h, w) of a window and timestep to the predicted noise.
        latents: Clean, (b, c, f, h, w).
        scheduler: Whose noise schedule is used.
        windows: How the film is cut.
        steps: How many.

    Yields:
        (b, c, f, h, w), less clean each time.
    """
    backwards: Any = DDIMInverseScheduler.from_config(scheduler.config)
    backwards.set_timesteps(steps, device=latents.device)
    weights = total_weights(list(windows), latents.shape[2]).to(latents)
    for t in backwards.timesteps:
        current = latents

        def part(frames: Sequence[int], current: Tensor = current, t: Any = t) -> Tensor:
            return predict(current[:, :, list(frames)], t).to(current.dtype)

        noise = denoise_step(part, current, windows) / weights
        latents = backwards.step(noise, t, current, return_dict=False)[0]
        yield latents
