"""From speech to a face: what learns, what its loss is, and whole runs on talking heads of the drawn world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from referencenet.checkpoints.audio2lmk import AUDIO2LMK
from referencenet.methods.tiny import filled, tiny_pipeline
from referencenet.paperdoll.layouts import write_dataset
from referencenet.preprocess.face_geometry import projected
from referencenet.preprocess.face_track import read_track
from referencenet.preprocess.talking_face import TalkingFace
from referencenet.training.config import DataConfig, RunConfig, read_config
from referencenet.training.data.layouts.index import open_dataset
from referencenet.training.estimate import estimate
from referencenet.training.export import export
from referencenet.training.full_size import full_pipeline
from referencenet.training.recipes.audio2lmk.recipe import Audio2Lmk, Audio2LmkRecipe
from referencenet.training.recipes.index import CONFIGURATIONS, configuration, recipes, trainings
from referencenet.training.run import Order, start_pipeline, train
from sounds import tiny_wav2vec
from trainings import losses_of_thirty_steps

STAGES = tuple(Audio2LmkRecipe.stages)
FRAMES = 9


def recipe_for(stage: str, **changes: Any) -> Audio2LmkRecipe:
    config = RunConfig(**({"steps": 30, "data": DataConfig(frames=FRAMES, size=(64, 64), workers=0)} | changes))
    return Audio2LmkRecipe(tiny_pipeline(Audio2Lmk), stage, config)


def batch_for(recipe: Audio2LmkRecipe, samples: int = 2) -> Any:
    generator = torch.Generator().manual_seed(0)
    return recipe.exampled(lambda *shape: torch.randn(shape, generator=generator), samples, (8, 8))


def step_of(recipe: Audio2LmkRecipe, batch: Any) -> dict[str, Tensor]:
    with recipe.losses(batch) as losses:
        losses["loss"].backward()
    return {name: p.grad.clone() for name, p in recipe.parameters.items() if p.grad is not None}


def test_it_stands_beside_the_systems() -> None:
    assert set(trainings()) - set(recipes()) == {"audio2lmk"}


@pytest.mark.parametrize("stage", STAGES)
def test_one_step_changes_what_shall_learn_and_nothing_else(stage: str) -> None:
    recipe = recipe_for(stage)
    assert set(recipe.modules) == {f"audio2{stage}"}
    before = {f"{n}.{k}": v.clone() for n, m in recipe.pipe.components.items() for k, v in m.state_dict().items()}
    gradients = step_of(recipe, batch_for(recipe))
    assert not any("feature_extractor" in name or "masked" in name for name in recipe.parameters)
    assert any(".encoder.layers." in name for name in gradients)
    assert gradients.keys() == recipe.parameters.keys()
    torch.optim.Adam(recipe.parameters.values(), lr=0.1, eps=1e-30).step()
    after = {f"{n}.{k}": v for n, m in recipe.pipe.components.items() for k, v in m.state_dict().items()}
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name, gradient in gradients.items() if bool(gradient.any())}


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_under_checkpointing_are_those_without(stage: str) -> None:
    plain, again = (recipe_for(stage, checkpointing=wanted) for wanted in (False, True))
    found, same = (step_of(recipe, batch_for(recipe)) for recipe in (plain, again))
    for name, gradient in found.items():
        torch.testing.assert_close(same[name], gradient, rtol=1e-4, atol=1e-6)
    assert not any("forward" in module.__dict__ for module in again.network.modules())


@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_of_one_batch_falls_by_a_fifth_in_thirty_steps(stage: str) -> None:
    recipe = recipe_for(stage)
    losses = losses_of_thirty_steps(recipe, batch_for(recipe), 1e-2)
    assert losses[-1] < 0.8 * losses[0], losses


@pytest.mark.parametrize("stage", STAGES)
def test_the_gradient_of_a_batch_is_the_mean_of_its_samples(stage: str) -> None:
    """So that two processes are one with twice the batch, though the samples have not as many frames."""
    recipe = recipe_for(stage)
    batch = batch_for(recipe)
    batch.tensors["counted"][1, 4:] = 0
    whole = step_of(recipe, batch)
    for parameter in recipe.parameters.values():
        parameter.grad = None
    for i in range(2):
        part = {name: tensor[i : i + 1] for name, tensor in batch.tensors.items()}
        halves = step_of(recipe, type(batch)(step=0, places=(i,), tensors=part, texts={}))
    for name, gradient in whole.items():
        torch.testing.assert_close(halves[name] / 2, gradient, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_mean_distance_of_the_frames_that_there_are() -> None:
    recipe = recipe_for("mesh")
    batch = batch_for(recipe)
    batch.tensors["counted"][0, 5:] = 0
    with torch.no_grad(), recipe.losses(batch) as losses:
        found = recipe.heard(batch.tensors)
    errors = (found - batch.tensors["target"]).abs()
    expected = (errors[0, :5].mean() + errors[1].mean()) / 2
    torch.testing.assert_close(losses["loss"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_estimate_of_24gb_is_below_24_gib(stage: str) -> None:
    config = read_config(configuration("audio2lmk", "24gb"), stage)
    found = estimate(Audio2LmkRecipe(full_pipeline(Audio2Lmk), stage, config), config)
    assert 2**30 < found.total < 8 * 2**30, f"\n{found}"


def test_configurations_have_the_stages() -> None:
    for name in CONFIGURATIONS:
        path = configuration("audio2lmk", name)
        assert path.read_text().startswith("# ")
        assert all(read_config(path, stage).optimizer.weight_decay == 0 for stage in STAGES)


def test_a_drawn_heads_track_lies_where_its_face_is_drawn(roots: dict[str, Path]) -> None:
    (sample,) = open_dataset(roots["hdtf"], "hdtf", "train", ("track",)).samples
    track = read_track(sample.track)  # pyright: ignore[reportArgumentType]
    assert (len(track.vertices), float(track.rate)) == (50, 25.0)
    pixels = projected(track.vertices, track.matrices, track.width, track.height)
    eyes, brows, chin = pixels[:, [33, 263]], pixels[:, [55, 285]], pixels[:, 152]
    assert ((eyes > 0) & (eyes < 64)).all()
    assert (brows[..., 1] < eyes[..., 1].mean(1, keepdims=True)).all()
    assert (chin[:, 1] > eyes[..., 1].max(1)).all()
    assert (pixels[:, 50] < 0).any(-1).all()  # a drawn face has no cheekbones
    height = track.vertices[:, 14, 1] - track.vertices[:, 13, 1]
    assert np.ptp(height) > 0.2  # it speaks
    still = np.abs(track.vertices[:, [33, 263], 1]).max()
    assert still < 1e-3  # between its eyes is where the head's own space begins


def test_a_clip_is_what_the_track_has_at_thirty_frames_a_second(roots: dict[str, Path]) -> None:
    (sample,) = open_dataset(roots["hdtf"], "hdtf", "train").samples
    track = read_track(sample.track)  # pyright: ignore[reportArgumentType]
    generator = torch.Generator()
    mesh = recipe_for("mesh", data=DataConfig(frames=60, workers=0)).read(sample, generator.manual_seed(0))
    assert mesh["sound"].shape == (32000,)  # pyright: ignore[reportAttributeAccessIssue]
    assert mesh["counted"].sum() == 59  # pyright: ignore[reportAttributeAccessIssue] - of 50 frames at 25
    expected = torch.from_numpy(track.vertices[[0, 5, 40]] - track.vertices[0]).float()
    torch.testing.assert_close(mesh["target"][[0, 6, 48]], expected, rtol=1e-4, atol=1e-4)  # pyright: ignore
    pose = recipe_for("pose").read(sample, generator.manual_seed(0))
    assert pose["target"].shape == (FRAMES, 6)  # pyright: ignore[reportAttributeAccessIssue]
    assert not pose["target"][0].any() or pose["target"][0].abs().max() < 0.5  # pyright: ignore


@pytest.mark.slow
def test_runs_are_trained_resumed_in_the_same_bits_and_exported(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "heads", 5, "hdtf", 64, 3)
    quick = ("batch=2", "data.frames=9", "data.workers=0", "validate_every=2", "log_every=1", "optimizer.cooldown=0")

    def order(out: str, *more: str, **fields: Any) -> Order:
        given = {"system": "audio2lmk", "config": "paperdoll", "start": "tiny", "quiet": True, **fields}
        return Order(data=data, out=tmp_path / out, changes=(*quick, *more), **given)

    train(order("whole", "steps=2"))
    train(order("broken", "steps=1"))
    train(order("broken", "steps=2", "data.workers=1", resume=True))
    one, other = (Audio2Lmk.from_published(export(tmp_path / n, tmp_path / f"{n}-out")) for n in ("whole", "broken"))
    start = tiny_pipeline(Audio2Lmk)
    for name, network in one.components.items():
        same, begun = other.components[name].state_dict(), start.components[name].state_dict()
        assert all(torch.equal(value, same[key]) for key, value in network.state_dict().items())
        assert any(not torch.equal(value, begun[key]) for key, value in network.state_dict().items())
    record = (tmp_path / "whole" / "mesh" / "log.jsonl").read_text().splitlines()[-1]
    assert "validation_cut" in record
    assert (tmp_path / "whole" / "pose" / "sheets" / "000002.png").is_file()
    face = TalkingFace.from_published(tmp_path / "whole-out", config=one.sizes())
    assert face.offsets(np.zeros(16000, dtype=np.float32)).shape == (30, 468, 3)


def test_networks_begin_with_a_speech_model(tmp_path: Path) -> None:
    model = filled(tiny_wav2vec(), 5)
    model.save_pretrained(tmp_path / "wav2vec2")
    pipe = start_pipeline("audio2lmk", str(tmp_path / "wav2vec2"))
    again = start_pipeline("audio2lmk", str(tmp_path), base=str(tmp_path / "wav2vec2"))
    for name, network in pipe.components.items():
        state = network.audio_encoder.state_dict()
        own = {key: value for key, value in model.state_dict().items() if "masked" not in key}
        assert all(torch.equal(state[key], value) for key, value in own.items())
        same = again.components[name].state_dict()
        assert all(torch.equal(value, same[key]) for key, value in network.state_dict().items())
    assert pipe.audio2mesh.out_fn.out_features == AUDIO2LMK.base_config.get("out_dim", 1404)
    with pytest.raises(FileNotFoundError, match="has neither audio2mesh.pt and audio2pose.pt"):
        start_pipeline("audio2lmk", str(tmp_path))


def test_what_it_has_not_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder builtin to begin with; .* or tiny\."):
        start_pipeline("audio2lmk", "builtin", starts={"tiny": tiny_pipeline, "builtin": tiny_pipeline})
    with pytest.raises(ValueError, match="has no denoiser; leave it out"):
        recipe_for("mesh", predicts="v_prediction")
