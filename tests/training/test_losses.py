"""What is learned: the velocity in the place of the noise, frames with a time of their own, places that count more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn import functional

from referencenet.media.images import read_mask, to_tensor
from referencenet.training.data.layouts.index import open_dataset
from referencenet.training.losses import TRAINING_SCHEDULER, NoiseLoss, VelocityLoss, as_velocity
from referencenet.training.system import Batch
from trainings import inputs_for, tiny_recipe

SHAPE = (2, 4, 3, 5, 6)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


def losses() -> tuple[NoiseLoss, VelocityLoss]:
    plain = NoiseLoss(scheduler=DDIMScheduler(), noise_offset=0.1)
    return plain, as_velocity(plain)


def test_the_velocity_takes_the_place_of_the_noise_and_leaves_its_own_kind_alone() -> None:
    _, velocity = losses()
    assert (velocity.noise_offset, velocity.snr_gamma) == (0.1, 0.0)
    assert velocity.scheduler.config.prediction_type == "v_prediction"
    own = VelocityLoss(scheduler=DDIMScheduler(**TRAINING_SCHEDULER))
    assert as_velocity(own) is own


@pytest.mark.parametrize("index", [0, 1])
def test_frames_with_a_time_of_their_own_are_learned_as_pictures_are(index: int) -> None:
    loss = losses()[index]
    latents, added, predicted = noise(0), noise(1), noise(2)
    times = torch.tensor([10, 400, 990, 3, 500, 998])
    target, noisy = loss.target(latents, added, times), loss.noisy(latents, added, times)
    rows = [x.transpose(1, 2).flatten(0, 1) for x in (latents, added, predicted, target, noisy)]
    torch.testing.assert_close(rows[3], loss.target(rows[0], rows[1], times))
    torch.testing.assert_close(rows[4], loss.noisy(rows[0], rows[1], times))
    torch.testing.assert_close(loss(predicted, target, times), loss(rows[2], rows[3], times))


def test_places_count_as_they_are_weighted() -> None:
    loss, _ = losses()
    predicted, target, times = noise(0, 2, 4, 5, 6), noise(1, 2, 4, 5, 6), torch.tensor([3, 7])
    inside = (noise(2, 2, 1, 5, 6) > 0).float()
    squares = (predicted - target).square()
    expected = torch.stack([(squares[i] * inside[i]).sum() / (4 * inside[i].sum()) for i in range(2)]).mean()
    torch.testing.assert_close(loss(predicted, target, times, inside), expected)
    torch.testing.assert_close(
        loss(predicted, target, times, torch.full_like(inside, 3)), loss(predicted, target, times)
    )


@pytest.mark.parametrize(("system", "stage"), [("idm_vton", "tryon"), ("flashface", "faces"), ("magicpose", "pose")])
def test_a_run_that_predicts_the_velocity_draws_by_it_and_learns_it(system: str, stage: str) -> None:
    plain, recipe = tiny_recipe(system, stage), tiny_recipe(system, stage, predicts="v_prediction")
    assert plain.pipe.scheduler.config.prediction_type == "epsilon"
    config = recipe.pipe.scheduler.config
    assert (config.prediction_type, config.rescale_betas_zero_snr) == ("v_prediction", True)
    inputs = inputs_for(recipe)
    velocity = recipe.pipe.scheduler.get_velocity(inputs.latents, inputs.noise, inputs.timesteps)
    torch.testing.assert_close(recipe.loss.target(inputs.latents, inputs.noise, inputs.timesteps), velocity)
    assert not torch.allclose(velocity, plain.loss.target(inputs.latents, inputs.noise, inputs.timesteps))


def test_a_mask_counts_where_a_system_paints_into_one() -> None:
    recipe = tiny_recipe("idm_vton", "tryon", mask_weight=5.0)
    batch = {name: torch.zeros(1, 3, 64, 48) for name in ("person", "dense", "garment")}
    mask = torch.zeros(1, 1, 64, 48)
    mask[:, :, 8:24] = 1
    tensors = {**batch, "mask": mask, "clip": torch.zeros(1, 3, 32, 32)}
    inputs = recipe.inputs(_batch(tensors), recipe.dropped(_batch(tensors)))
    assert inputs["places"].shape == (1, 1, 8, 6)
    assert inputs["places"].unique().tolist() == [1.0, 5.0]
    assert inputs["places"][0, 0, :, 0].tolist() == [1, 5, 5, 1, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="has no mask of what matters most"):
        tiny_recipe("magicpose", "pose", mask_weight=5.0)


@pytest.mark.parametrize(("stage", "region"), [("image", "face_mask"), ("video", "sep_lip_mask")])
def test_a_face_or_a_mouth_counts_where_emo_learns_heads(stage: str, region: str, roots: dict[str, Path]) -> None:
    (sample,) = open_dataset(roots["hdtf"], "hdtf", "train").samples
    recipe = tiny_recipe("emo", stage, mask_weight=5.0)
    batch = Batch.of(0, (0,), [recipe.read(sample, torch.Generator().manual_seed(0))])
    inputs = recipe.inputs(batch, recipe.dropped(batch))
    (path,) = (roots["hdtf"] / region).iterdir()
    mask = to_tensor(read_mask(path).resize(recipe.size))
    expected = 1 + 4 * functional.interpolate(mask[None], inputs["latents"].shape[-2:], mode="area").unsqueeze(2)
    torch.testing.assert_close(inputs["places"], expected)
    assert 1 < float(expected.mean()) < 5


def _batch(tensors: dict[str, Tensor]) -> Batch:
    return Batch(step=0, places=(0,), tensors=tensors, texts={"description": ("shirts",)})
