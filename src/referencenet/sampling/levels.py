"""A reference at the noise level of a pass: noised and scaled as the scheduler has done it with the picture.

A scheduler's `add_noise` is made for training and for image-to-image; asked in the middle of a step it may speak of
another pass than the one that is running (two-stage solvers, timesteps that occur twice). So where a scheduler keeps
its place in a table, the level is read at that place. Levels that depend on the timestep alone are `add_noise`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose, sqrt
from typing import Any

import torch
from torch import Tensor

from referencenet.sampling.caller import is_same

ROUNDING = 1e-3
"""Distance within which a level computed back from an input's scale is one of the scheduler's table."""


def at_level(scheduler: Any, clean: Tensor, noise: Tensor, timestep: Any) -> Tensor:
    """Noise latents as the UNet sees them at this pass.

    Args:
        scheduler: The one that is stepping, between its last step and its next.
        clean: (b, c, h, w).
        noise: (b, c, h, w).
        timestep: Of the pass: a number or a tensor of equal entries.

    Returns:
        Scaled as the model's input is, shaped like `clean`.

    Raises:
        TypeError: If the scheduler has no way to noise a picture.
        ValueError: If the pass is none of the scheduler's, or several at once.
    """
    if isinstance(timestep, Tensor) and timestep.numel() > 1 and bool((timestep != timestep.flatten()[0]).any()):
        raise ValueError(
            f"the rows of this pass are at {len(timestep.unique())} timesteps, as where steps are made at once "
            "(ParaDiGMS); a reference stands at one noise level: take a pipeline that goes step by step."
        )
    if getattr(scheduler, "sigmas", None) is None or not hasattr(scheduler, "step_index"):
        if not hasattr(scheduler, "add_noise"):
            raise TypeError(
                f"{type(scheduler).__name__} has no add_noise, so a reference cannot be brought to its levels; take "
                "another scheduler, such as DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)."
            )
        times = torch.as_tensor(timestep, device=clean.device).reshape(-1)[:1]
        return scheduler.scale_model_input(scheduler.add_noise(clean, noise, times), timestep)
    place = place_of(scheduler, timestep)
    scale = float(scheduler.scale_model_input(torch.ones((), dtype=torch.float64), timestep))
    if scale == 1.0 and hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[place])
        return alpha.to(clean.dtype) * clean + sigma.to(clean.dtype) * noise
    sigma = _sigma(scheduler, place, scale)  # the input is (clean + sigma noise) / sqrt(sigma^2 + data^2)
    return scheduler.scale_model_input(clean + sigma.to(clean.dtype) * noise, timestep)


@dataclass(frozen=True)
class Level:
    """The noise of one pass: the UNet sees alpha clean + sigma noise, with alpha^2 + sigma^2 = 1.

    Attributes:
        timestep: What the UNet is told.
        alpha: In (0, 1].
        sigma: In [0, 1).
    """

    timestep: Any
    alpha: float
    sigma: float


def levels(scheduler: Any) -> tuple[list[Level], Level]:
    """Every pass of a schedule that has been set, the noisiest first, and where its last step ends.

    Raises:
        ValueError: If the scheduler's passes are not those of one walk from noise to a picture.
    """
    alphas, sigmas = getattr(scheduler, "alphas_cumprod", None), getattr(scheduler, "sigmas", None)
    between = any(hasattr(scheduler, name) for name in ("sigmas_interpol", "mid_point_sigma"))
    if (
        alphas is None
        or between
        or hasattr(scheduler.config, "sigma_data")
        or getattr(scheduler.config, "use_flow_sigmas", False)
    ):
        raise ValueError(
            f"the steps of {type(scheduler).__name__} cannot be run backwards one by one; take DDIMScheduler or "
            "EulerDiscreteScheduler, or Style(how='noised')."
        )
    if sigmas is None or not hasattr(scheduler, "step_index"):
        end = getattr(scheduler, "final_alpha_cumprod", None)
        shares = [float(alphas[int(t)]) for t in scheduler.timesteps] + [1.0 if end is None else float(end)]
    else:
        shares = [1 / (1 + float(sigma) ** 2) for sigma in sigmas]
    found = [
        Level(t, sqrt(share), sqrt(1 - share)) for t, share in zip([*scheduler.timesteps, None], shares, strict=True)
    ]
    return found[:-1], found[-1]


def place_of(scheduler: Any, timestep: Any) -> int:
    """Where the scheduler is in its table; before its first step it finds the place by the same rule.

    Args:
        scheduler: The one that is stepping.
        timestep: Of the pass: a number or a tensor of equal entries.

    Raises:
        ValueError: If the pass is none of the scheduler's.
    """
    place = getattr(scheduler, "step_index", 0)
    if not hasattr(scheduler, "step_index"):
        place = next((i for i, each in enumerate(scheduler.timesteps) if is_same(each, timestep)), -1)
    if place is None:
        place = getattr(scheduler, "begin_index", None)
    if place is None:
        place = scheduler.index_for_timestep(torch.as_tensor(timestep).reshape(-1)[0])
    if not 0 <= place < len(scheduler.timesteps) or not is_same(scheduler.timesteps[place], timestep):
        raise ValueError(
            f"the UNet was called at timestep {float(torch.as_tensor(timestep).reshape(-1)[0]):g}, which is not where "
            f"the pipeline's {type(scheduler).__name__} is now; a pass that another scheduler leads cannot be given a "
            "reference."
        )
    return place


def _sigma(scheduler: Any, place: int, scale: float) -> Tensor:
    """The level of the pass of which the scale of its input tells, exact where it is one of the scheduler's tables."""
    data = float(getattr(scheduler.config, "sigma_data", None) or 1.0)
    seen = sqrt(max(1 / scale**2 - data**2, 0.0))
    near = [scheduler.sigmas[place]]
    between = getattr(scheduler, "sigmas_interpol", None)
    near += [] if between is None else list(between[max(place - 1, 0) : place + 1])
    best = min(near, key=lambda sigma: abs(float(sigma) - seen))
    return best if isclose(float(best), seen, rel_tol=ROUNDING, abs_tol=ROUNDING) else torch.tensor(seen)
