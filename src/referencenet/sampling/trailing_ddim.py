"""DDIM (Song et al. 2021) with trailing steps at real-valued times, as FlashFace's released code samples.

Times are 999 - 1000 k / N. The noise level of the update is interpolated between the two neighbouring training steps;
that of the network's prediction is the nearest one's. Where 1000 / N is whole this is diffusers' DDIMScheduler with
`timestep_spacing="trailing"`; for N = 30 or 35, both in use, it is not. The published code takes one step too many at
N = 61, 103, 121 and 122, by rounding; here N steps are N.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput, betas_for_alpha_bar
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from torch import Tensor

FIXED = {
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
}
"""What cannot be chosen; in the configuration for the schedulers of diffusers that take over."""


class TrailingDDIMScheduler(SchedulerMixin, ConfigMixin):
    """A diffusers scheduler. Others go on with its noise schedule: `DDIMScheduler.from_config(scheduler.config)`.

    Args:
        num_train_timesteps: Steps of training.
        beta_start: First variance.
        beta_end: Last variance.
        beta_schedule: "scaled_linear", as published: roots are spaced evenly; "linear" or "squaredcos_cap_v2".
        trained_betas: All variances, instead of the three.
        prediction_type: What the network predicts: "epsilon", as published, "v_prediction" or "sample".
        rescale_betas_zero_snr: Refused: levels are interpolated between training steps, and pure noise has none.

    Raises:
        ValueError: If the schedule or what is predicted is of another kind.
    """

    _compatibles = [scheduler.name for scheduler in KarrasDiffusionSchedulers]
    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        beta_schedule: str = "scaled_linear",
        trained_betas: Sequence[float] | None = None,
        prediction_type: str = "epsilon",
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        if rescale_betas_zero_snr:
            raise ValueError("this scheduler cannot begin at zero signal: give rescale_betas_zero_snr=False.")
        if prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"prediction_type is {prediction_type!r}; expected 'epsilon', 'v_prediction' or 'sample'.")
        # others have other defaults, so they must not leave out what is a default here
        self.register_to_config(**FIXED, _use_default_values=[])
        betas = (
            _betas(beta_schedule, beta_start, beta_end, num_train_timesteps)
            if trained_betas is None
            else torch.tensor(trained_betas, dtype=torch.float64)
        )
        self.alphas_cumprod = (1 - betas).cumprod(0)  # (num_train_timesteps,), float64
        self.train_sigmas = (1 - self.alphas_cumprod).sqrt()
        self.set_timesteps(num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Choose the steps.

        Args:
            num_inference_steps: N, from 1 to the steps of training.
            device: Where the timesteps shall lie.

        Raises:
            ValueError: If N is out of range.
        """
        total = self.config["num_train_timesteps"]
        if not 1 <= num_inference_steps <= total:
            raise ValueError(f"{num_inference_steps} steps were asked for; there are 1 to {total}.")
        self.num_inference_steps = num_inference_steps
        count = torch.arange(num_inference_steps, dtype=torch.float64)
        self.times = (total - 1 - count * (total / num_inference_steps)).clamp(min=0)
        self.sigmas = torch.cat([self._interpolated(self.times), torch.zeros(1, dtype=torch.float64)])
        self.timesteps = self.times.round().long().to(device)
        self._step_index: int | None = None

    def scale_model_input(self, sample: Tensor, timestep: Tensor | int | None = None) -> Tensor:  # noqa: ARG002 - as diffusers
        """The sample (b, c, height, width) as it is: this schedule scales nothing."""
        return sample

    def original_sample(self, model_output: Tensor, timestep: Tensor | int, sample: Tensor) -> Tensor:
        """x0 that a prediction means.

        Args:
            model_output: What the network predicted, shaped like `sample`.
            timestep: A training step.
            sample: Noisy latents (b, c, height, width).

        Returns:
            Shaped like `sample`.
        """
        kind, sigma = self.config["prediction_type"], self.train_sigmas[int(timestep)]
        alpha = float((1 - sigma.square()).sqrt())
        if kind == "sample":
            return model_output
        if kind == "v_prediction":
            return alpha * sample - float(sigma) * model_output
        return (sample - float(sigma) * model_output) / alpha

    def step(
        self, model_output: Tensor, timestep: Tensor | int, sample: Tensor, return_dict: bool = True
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """One step toward the picture.

        Args:
            model_output: What the network predicted, shaped like `sample`.
            timestep: The network's timestep, one of `timesteps`.
            sample: Noisy latents (b, c, height, width).
            return_dict: Whether an object is returned instead of a tuple.

        Returns:
            The next latents and x0, both shaped like `sample`.
        """
        if self._step_index is None:
            self._step_index = self._index_of(int(timestep))
        sigma, following = (float(s) for s in self.sigmas[self._step_index : self._step_index + 2])
        original = self.original_sample(model_output, timestep, sample)
        direction = (sample - (1 - sigma**2) ** 0.5 * original) / sigma
        previous = (1 - following**2) ** 0.5 * original + following * direction
        self._step_index += 1
        return DDIMSchedulerOutput(previous, original) if return_dict else (previous, original)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Samples (b, c, height, width) at training steps (b,), noised with `noise` of the same shape."""
        sigma = self.train_sigmas.to(timesteps.device)[timesteps].view(-1, *[1] * (original_samples.ndim - 1))
        alpha = (1 - sigma.square()).sqrt()
        return alpha.to(original_samples) * original_samples + sigma.to(noise) * noise

    def __len__(self) -> int:
        return self.config["num_train_timesteps"]

    def _index_of(self, timestep: int) -> int:
        found = (self.timesteps == timestep).nonzero()
        if not len(found):
            raise ValueError(f"{timestep} is not a step of this schedule; it has {self.timesteps.tolist()[:10]} ...")
        return int(found[0])

    def _interpolated(self, times: Tensor) -> Tensor:
        """Noise levels at real-valued times: log(sigma / alpha) is interpolated between whole steps."""
        logs = torch.log(self.train_sigmas / (1 - self.train_sigmas.square()).sqrt())
        low, high = times.floor().long(), times.ceil().long()
        return torch.sigmoid(2 * logs[low].lerp(logs[high], times - low)).sqrt()


def _betas(schedule: str, start: float, end: float, steps: int) -> Tensor:
    """Variances of all training steps, (steps,), float64."""
    if schedule == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()
    if schedule == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    if schedule == "squaredcos_cap_v2":
        return betas_for_alpha_bar(steps).double()
    raise ValueError(f"beta_schedule is {schedule!r}; expected 'scaled_linear', 'linear' or 'squaredcos_cap_v2'.")
