"""The sampler with real-valued times."""

import pytest
import torch
from diffusers import DDIMScheduler

from referencenet.sampling.trailing_ddim import TrailingDDIMScheduler
from tiny import diffusers_trailing_ddim, latents
from tolerances import relative_error


@pytest.mark.parametrize("steps", [1, 61, 103, 121, 122, 1000])
def test_steps_are_as_many_as_asked_for(steps: int):
    """The published code takes one more at some of these."""
    scheduler = TrailingDDIMScheduler()
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps
    assert scheduler.timesteps[0] == 999
    assert len(set(scheduler.timesteps.tolist())) == steps


@pytest.mark.parametrize("steps", [4, 20, 50])
def test_whole_spacings_are_diffusers_trailing_ddim(steps: int):
    ours = TrailingDDIMScheduler()
    theirs = diffusers_trailing_ddim()
    results = []
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(steps)
        sample = latents(1)
        for t in scheduler.timesteps:
            sample = scheduler.step(0.2 * sample + 0.1, t, sample).prev_sample
        results.append(sample)
    assert relative_error(*results) < 1e-5


def test_the_last_step_gives_the_picture_and_noise_is_taken_off_exactly():
    scheduler = TrailingDDIMScheduler()
    picture, noise = latents(1, 2, 4, 3, 5), latents(2, 2, 4, 3, 5)
    noisy = scheduler.add_noise(picture, noise, torch.tensor([999, 10]))
    for row, t in enumerate((999, 10)):
        found = scheduler.original_sample(noise[row : row + 1], t, noisy[row : row + 1])
        assert relative_error(found, picture[row : row + 1]) < 1e-5
    scheduler.set_timesteps(1)
    last = scheduler.step(noise[:1], 999, noisy[:1])
    assert torch.equal(last.prev_sample, last.pred_original_sample)


def test_wrong_steps_are_refused():
    scheduler = TrailingDDIMScheduler()
    with pytest.raises(ValueError, match="1 to 1000"):
        scheduler.set_timesteps(1001)
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match="not a step of this schedule"):
        scheduler.step(latents(1), 998, latents(2))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("schedule", ["scaled_linear", "linear", "squaredcos_cap_v2"])
def test_schedules_and_predictions_are_those_of_diffusers(schedule: str, prediction: str):
    ours = TrailingDDIMScheduler(beta_schedule=schedule, prediction_type=prediction)
    theirs = DDIMScheduler.from_config(ours.config)
    results = []
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(4)
        sample = latents(1)
        for t in scheduler.timesteps[1:]:  # squaredcos_cap_v2 begins at next to no signal
            sample = scheduler.step(0.2 * sample + 0.1, t, sample).prev_sample
        results.append(sample)
    assert relative_error(*results) < 1e-4


def test_trained_betas_are_taken():
    betas = [0.001, 0.002, 0.003, 0.004]
    ours = TrailingDDIMScheduler(num_train_timesteps=4, trained_betas=betas)
    theirs = DDIMScheduler.from_config(ours.config)
    assert torch.allclose(ours.alphas_cumprod.float(), theirs.alphas_cumprod)


def test_other_kinds_are_refused():
    with pytest.raises(ValueError, match="beta_schedule is 'sigmoid'"):
        TrailingDDIMScheduler(beta_schedule="sigmoid")
    with pytest.raises(ValueError, match="prediction_type is 'flow'"):
        TrailingDDIMScheduler(prediction_type="flow")
    with pytest.raises(ValueError, match="cannot begin at zero signal"):
        TrailingDDIMScheduler(rescale_betas_zero_snr=True)
