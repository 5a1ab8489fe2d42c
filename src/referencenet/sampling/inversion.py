"""DDIM's inversion (Song et al. 2021, arXiv 2010.02502, section 4.3): from clean latents to their noise.

The steps of DDIM backwards, each with the prediction at its own end. A film goes over a schedule of its own, a picture
over the very passes of a schedule that has been set. Letters: b samples, c channels, f frames, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from diffusers import DDIMInverseScheduler
from torch import Tensor

from referencenet.sampling.levels import Level
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


def inverted_picture(
    predict: Callable[[Tensor, Any], Tensor], latents: Tensor, levels: tuple[Sequence[Level], Level], kind: str
) -> dict[int, Tensor]:
    """The latents of a picture at every pass of a schedule.

    Args:
        predict: Latents (b, c, h, w) as the UNet takes them, and a timestep, to what it predicts.
        latents: Clean, (b, c, h, w).
        levels: The passes, the noisiest first, and where the last step ends.
        kind: What is predicted: `"epsilon"`, `"v_prediction"` or `"sample"`.

    Returns:
        Number of the pass to latents (b, c, h, w), as the UNet takes them.
    """
    passes, last = levels
    found: dict[int, Tensor] = {}
    current = latents
    for place in reversed(range(len(passes))):
        level = passes[place]
        noise = _noise_of(predict(current, level.timestep).to(current.dtype), current, level, kind)
        clean = (current - last.sigma * noise) / last.alpha
        current = found[place] = level.alpha * clean + level.sigma * noise
        last = level
    return found


def _noise_of(predicted: Tensor, latents: Tensor, level: Level, kind: str) -> Tensor:
    """The noise in latents (b, c, h, w), from what the UNet predicts of them."""
    if kind == "epsilon":
        return predicted
    if kind == "v_prediction":
        return level.alpha * predicted + level.sigma * latents
    return (latents - level.alpha * predicted) / level.sigma
