"""Every published training: what learns and what does not, checkpointing, drops, and that a loss falls."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from referencenet.methods.emo import ZERO_SNR
from referencenet.training.config import DataConfig, read_config
from referencenet.training.data.layouts.index import open_dataset
from referencenet.training.drops import Drop, draw_drops, passes_of
from referencenet.training.estimate import estimate
from referencenet.training.full_size import full_pipeline
from referencenet.training.recipes.index import CONFIGURATIONS, configuration, recipe_of, recipes
from trainings import CASES, SIDE, inputs_for, losses_of_thirty_steps, tiny_recipe

LEARNS = {
    ("animate_anyone", "image"): {"unet", "reference_unet", "pose_guider"},
    ("animate_anyone", "video"): {"unet"},
    ("aniportrait", "image"): {"unet", "reference_unet", "pose_guider"},
    ("aniportrait", "video"): {"unet"},
    ("diffportrait3d", "reference"): {"reference_unet", "controlnet"},
    ("diffportrait3d", "views"): {"unet"},
    ("emo", "image"): {"unet", "reference_unet", "face_locator"},
    ("emo", "video"): {"unet", "audio_projection"},
    ("emo", "speed"): {"unet", "speed_projection"},
    ("flashface", "faces"): {"unet", "reference_unet"},
    ("hallo", "image"): {"unet", "reference_unet", "face_locator", "face_projection"},
    ("hallo", "video"): {"unet", "audio_projection"},
    ("idm_vton", "tryon"): {"unet", "image_projection"},
    ("magic_animate", "image"): {"reference_unet", "controlnet"},
    ("magic_animate", "video"): {"unet"},
    ("magicpose", "appearance"): {"reference_unet"},
    ("magicpose", "pose"): {"reference_unet", "controlnet"},
    ("parts2whole", "parts"): {"reference_unet", "unet", "pose_guider"},
    ("stable_garment", "garment"): {"reference_unet"},
    ("stable_garment", "tryon"): {"reference_unet", "controlnet", "guider"},
}
"""Components of which something learns."""


OFTEN = {
    ("animate_anyone", "video"),
    ("diffportrait3d", "views"),
    ("emo", "speed"),
    ("idm_vton", "tryon"),
    ("magic_animate", "video"),
}
"""Networks that each tell their blocks something else; the other stages are checked with the slow tests."""


LAST = {system: list(recipe_of(system).stages)[-1] for system in recipes()}
"""Stages, which need most of a sample."""


DRAWN = {
    ("diffportrait3d", "views"), ("emo", "speed"), ("flashface", "faces"), ("hallo", "video"), ("parts2whole", "parts"),
    ("stable_garment", "garment"), ("stable_garment", "tryon"),
}  # fmt: skip
"""Stages with a drawing of their own; the others' are drawn by the slow tests."""


def step_of(recipe: Any, inputs: Any) -> dict[str, torch.Tensor]:
    """Forth and back; the gradients."""
    with recipe.losses(inputs) as losses:
        losses["loss"].backward()
    return {name: p.grad.clone() for name, p in recipe.parameters.items() if p.grad is not None}


@pytest.mark.parametrize(("system", "stage"), CASES)
def test_one_step_changes_what_shall_learn_and_nothing_else(system: str, stage: str) -> None:
    recipe = tiny_recipe(system, stage)
    assert set(recipe.modules) == LEARNS[system, stage]
    if not recipe.stage.temporal:
        assert not any("motion_modules" in name for name in recipe.parameters)
    networks = {n: m for n, m in recipe.pipe.components.items() if isinstance(m, torch.nn.Module)}
    before = {f"{n}.{k}": v.clone() for n, m in networks.items() for k, v in m.state_dict().items()}
    gradients = step_of(recipe, inputs_for(recipe))
    assert len(gradients) > 0.7 * len(recipe.parameters)  # the others are behind what the bank needs
    torch.optim.Adam(recipe.parameters.values(), lr=0.1, eps=1e-30).step()
    statistics = {
        f"{n}.{k}" for n in recipe.modules for k in networks[n].state_dict() if "running_" in k or "tracked" in k
    }
    after = {f"{n}.{k}": v for n, m in networks.items() for k, v in m.state_dict().items()}
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed - statistics == {name for name, gradient in gradients.items() if bool(gradient.any())}


@pytest.mark.parametrize(
    ("system", "stage"),
    [pytest.param(*case, marks=[] if case in OFTEN else [pytest.mark.slow]) for case in CASES],
)
def test_gradients_under_checkpointing_are_those_without(system: str, stage: str) -> None:
    plain, again = (tiny_recipe(system, stage, checkpointing=wanted) for wanted in (False, True))
    found, same = (step_of(recipe, inputs_for(recipe)) for recipe in (plain, again))
    assert found.keys() == same.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(same[name], gradient, rtol=1e-4, atol=1e-6)
    assert not any("forward" in module.__dict__ for m in again.modules.values() for module in m.modules())


@pytest.mark.slow
@pytest.mark.parametrize(("system", "stage"), CASES)
def test_the_loss_of_one_batch_falls_by_a_fifth_in_thirty_steps(system: str, stage: str) -> None:
    recipe = tiny_recipe(system, stage)
    rate = 2e-3 if (system, stage) == ("stable_garment", "tryon") else 5e-3  # residuals of random ControlNets are large
    losses = losses_of_thirty_steps(recipe, inputs_for(recipe), rate)
    assert losses[-1] < 0.8 * losses[0], losses


@pytest.mark.parametrize("system", recipes())
def test_shipped_configurations_name_the_stages_and_their_drops(system: str) -> None:
    for name in CONFIGURATIONS:
        path = configuration(system, name)
        assert path.read_text().startswith("# ")
        stages = tomllib.loads(path.read_text())
        assert list(stages) == list(recipe_of(system).stages)
        for stage in stages:
            config = read_config(path, stage)
            assert set(config.drops) <= set(recipe_of(system).stages[stage].drops)
            if name == "paperdoll":
                assert config.average
                assert (config.predicts, config.cache) == ("v_prediction", "memory")  # as the built-in weights do


@pytest.mark.slow
@pytest.mark.parametrize(("system", "stage"), CASES)
def test_the_estimate_of_24gb_is_below_24_gib(system: str, stage: str) -> None:
    kind, config = recipe_of(system), read_config(configuration(system, "24gb"), stage)
    found = estimate(kind(full_pipeline(kind.pipeline), stage, config), config)
    assert 4 * 2**30 < found.total < 24 * 2**30, f"\n{found}"


@pytest.mark.parametrize(
    ("system", "stage"),
    [pytest.param(*case, marks=[] if case[1] == LAST[case[0]] else [pytest.mark.slow]) for case in CASES],
)
def test_every_system_learns_from_what_paperdoll_writes(system: str, stage: str, roots: dict[str, Path]) -> None:
    recipe, samples = reading(system, stage, roots)
    batch = recipe.batch_of(0, (0,), samples[:1])
    gradients = step_of(recipe, recipe.drawn(batch))
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values())
    assert any(bool(gradient.any()) for gradient in gradients.values())


@pytest.mark.slow
@pytest.mark.parametrize(("system", "stage"), CASES)
def test_the_gradient_of_a_batch_is_the_mean_of_its_samples(system: str, stage: str, roots: dict[str, Path]) -> None:
    """So that processes which share a batch are one that has all of it: `fit` averages what each of them finds."""
    recipe, samples = reading(system, stage, roots)
    places = (0, 1)
    both = [samples[place % len(samples)] for place in places]
    whole = step_of(recipe, recipe.drawn(recipe.batch_of(0, places, both)))
    for parameter in recipe.parameters.values():
        parameter.grad = None
    for place, sample in zip(places, both, strict=True):
        shared = step_of(recipe, recipe.drawn(recipe.batch_of(0, (place,), [sample])))  # added to what was there
    assert shared.keys() >= whole.keys()
    most = max(float(gradient.norm()) for gradient in whole.values())
    for name, gradient in whole.items():  # what a norm behind it takes away again has rounding for its gradient
        apart = float((shared[name] / 2 - gradient).norm())
        assert apart <= 1e-3 * float(gradient.norm()) + 1e-5 * most, name


def reading(system: str, stage: str, roots: dict[str, Path]) -> tuple[Any, Any]:
    """A tiny recipe, and samples of the drawn world that it reads."""
    kind = recipe_of(system)
    found = open_dataset(roots[kind.layout], kind.layout, "train", kind.stages[stage].needs)
    frames = {"views": 8}.get(stage, 3 if kind.stages[stage].frames > 1 else 0)
    side = 128 if system in SIDE else 64
    data = DataConfig(size=(side, side), frames=frames, stride=2, workers=0)
    return tiny_recipe(system, stage, data=data), found.samples


def test_samples_that_go_without_the_reference_do_not_depend_on_it() -> None:
    recipe = tiny_recipe("idm_vton", "tryon", drops={"guidance": 1.0})
    inputs = inputs_for(recipe)
    blind = passes_of(recipe.stage.drops, {"guidance": torch.tensor([False, True])}, 2)
    assert [p.reads for p in blind] == ["reference", "zeros"]
    further = {
        **inputs.further,
        "blank_image_states": torch.zeros(1, 257, 8)[:, :, : inputs.further["image_states"].shape[2]],
    }
    inputs = replace(inputs, passes=blind, further=further)
    assert inputs.shown is not None
    other = replace(inputs, shown=replace(inputs.shown, latents=inputs.shown.latents + 1))
    loss = recipe.loss
    seen = []
    for given in (inputs, other):
        told = recipe.told(given)
        with torch.no_grad(), recipe.predicted(told) as prediction:
            seen.append(loss.errors(prediction, told.noise))
    assert not torch.isclose(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])


def test_drops_are_drawn_by_place_or_by_step_and_add_up() -> None:
    drops = {
        "reference": Drop(rate=0.3, per="batch", reads=None),
        "words": Drop(rate=0.5, blind=("prompt",)),
        "both": Drop(rate=0.5, reads="zeros", blind=("image",)),
    }
    places = list(range(4000))
    found = draw_drops(drops, 7, 3, places)
    assert found["reference"].all() or not found["reference"].any()
    share = [bool(draw_drops(drops, 7, step, [0])["reference"]) for step in range(1000)]
    assert 0.25 < sum(share) / 1000 < 0.35
    assert 0.47 < float(found["words"].float().mean()) < 0.53
    assert torch.equal(draw_drops(drops, 7, 9, places[100:200])["words"], found["words"][100:200])
    passes = passes_of(drops, {"words": torch.tensor([True, True]), "both": torch.tensor([False, True])}, 2)
    assert [(p.reads, set(p.blind)) for p in passes] == [("reference", {"prompt"}), ("zeros", {"prompt", "image"})]


def test_emo_with_zero_terminal_snr_learns_the_velocity():
    recipe = tiny_recipe("emo", "image")
    recipe.pipe.scheduler = DDIMScheduler(**ZERO_SNR)
    inputs = inputs_for(recipe)
    with torch.no_grad():
        with recipe.losses(inputs) as losses:
            loss = losses["loss"]
        with recipe.predicted(inputs) as prediction:
            velocity = recipe.pipe.scheduler.get_velocity(inputs.latents, inputs.noise, inputs.timesteps)
            assert torch.allclose(loss, (prediction - velocity).square().mean())


@pytest.mark.parametrize(
    ("system", "stage"),
    [pytest.param(*case, marks=[] if case in DRAWN else [pytest.mark.slow]) for case in CASES],
)
def test_every_stage_draws_what_is_held_out(
    system: str, stage: str, roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("referencenet.training.system.DRAWN_STEPS", 1)
    side = 128 if system in SIDE else 64
    recipe, samples = reading(system, stage, roots)
    recipe.shown_samples = list(samples[:1])
    sheet = recipe.sheet()
    assert sheet is not None
    pictures = np.split(sheet, sheet.shape[1] // side, axis=1)
    assert len(pictures) >= 3
    assert all(picture.shape == (side, side, 3) for picture in pictures)
    assert all((a != b).any() for i, a in enumerate(pictures) for b in pictures[:i])
    assert all(module.training for module in recipe.modules.values())
