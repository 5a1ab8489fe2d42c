"""DDIM (Song et al. 2021) at the timesteps of latent-diffusion code (CompVis, ControlNet and what is built on them).

N steps are asked for, the stride is 1000 // N, and the timesteps are 1, 1 + stride, ... as long as they are below 1000.
Where N divides 1000 these are diffusers' "leading" timesteps with an offset of 1; for other N they are more than N (7
for 6, 31 for 30), where diffusers stops at N. With a stride that divides 999 the published code reads behind the end of
its table and fails; here that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler, SchedulerMixin

from referencenet.networks.layout import SD15_SCHEDULE

LDM_SCHEDULE: Mapping[str, Any] = {
    **SD15_SCHEDULE,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
"""Stable Diffusion 1's noise schedule, as latent-diffusion code samples it."""


class LDMScheduler(DDIMScheduler, SchedulerMixin):  # diffusers loads a component whose file names SchedulerMixin
    """diffusers' DDIMScheduler, with `LDM_SCHEDULE` as its configuration, at latent-diffusion timesteps."""

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Choose the timesteps.

        Args:
            num_inference_steps: N; there may be one or more timesteps more than that.
            device: Where the timesteps shall lie.

        Raises:
            ValueError: If the last timestep would lie behind the schedule's end.
        """
        total = int(self.config["num_train_timesteps"])
        self._check(num_inference_steps, total)
        self.num_inference_steps = num_inference_steps
        stride = total // num_inference_steps
        self.timesteps = (1 + torch.arange(0, total, stride)).flip(0).to(device)

    def _check(self, steps: int, total: int) -> None:
        """Refuse steps whose list is not in the schedule."""
        if 1 <= steps <= total and _is_in(steps, total):
            return
        near = sorted((n for n in range(1, total) if _is_in(n, total)), key=lambda n: abs(n - steps))[:2]
        why = (
            f"their stride of {total // steps} divides {total - 1}, so the first timestep would be {total}, which the "
            f"schedule does not have"
            if 1 <= steps <= total
            else f"there are {total} training steps"
        )
        raise ValueError(f"{steps} steps cannot be taken: {why}. Ask for {' or '.join(map(str, sorted(near)))}.")


def _is_in(steps: int, total: int) -> bool:
    """Whether the largest timestep of so many steps lies in the schedule."""
    return bool((total - 1) % (total // steps)) or total // steps == total
