"""The stages' recipes on a handful of pictures: what a batch holds, what learns, and the whole command end to end."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModel

from referencenet.builtin.load import load, load_image_encoder, load_observer
from referencenet.builtin.toys import make_image_encoder, make_image_processor, seeded
from referencenet.builtin.training.base import BaseRecipe, make_unet
from referencenet.builtin.training.correspondence import TOPICS
from referencenet.builtin.training.data import PictureSet, draw_set
from referencenet.builtin.training.encoded import EVERYTHING, LOOSE, EncodedSet, draw_told
from referencenet.builtin.training.image_encoder import ImageEncoderRecipe
from referencenet.builtin.training.observer import ObserverRecipe, aspects_of, make_observer
from referencenet.builtin.training.pose_referencenet import ReferenceNetRecipe, make_referencenet
from referencenet.builtin.training.stages import SCHEDULES, Settings, export, train
from referencenet.builtin.training.text import make_text_encoder, make_tokenizer, tokenize
from referencenet.builtin.training.vae import VaeRecipe, encode, make_vae, measure_scale
from referencenet.networks.pose_guider import PoseContext, PoseGuider
from referencenet.paperdoll.captions import IDENTITY, ORDER
from referencenet.paperdoll.scene import Scene
from referencenet.training.checkpoint import RunFolder
from referencenet.training.draws import step_generator

SCENES = 5


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return draw_set(tmp_path_factory.mktemp("set"), characters=4, scenes=SCENES, workers=1)


@pytest.fixture(scope="module")
def base(pictures: PictureSet) -> BaseRecipe:
    tokenizer = make_tokenizer(record["caption"] for record in pictures.records)
    text_encoder: CLIPTextModel = make_text_encoder(tokenizer)
    latents = torch.arange(len(pictures)).float().view(-1, 1, 1, 1).expand(-1, 4, 32, 32)
    data = EncodedSet.of(pictures, latents, tokenizer)
    return BaseRecipe(make_unet(), text_encoder, tokenizer, make_vae(), data, prompts=[], batch=8)


def test_sheet_shows_one_character_twice_and_teaches_the_told_figure(base: BaseRecipe) -> None:
    for step in range(6):
        batch = base._sheet_batch(step_generator(0, step))
        latents, parts = batch.latents, batch.parts
        side = -1 if latents.shape[-1] == 64 else -2
        first, second = latents.chunk(2, dim=side)
        assert torch.equal(first[:, 0, 0, 0] // SCENES, second[:, 0, 0, 0] // SCENES)
        assert not (first == second).any()
        assert parts.shape[1] * latents.shape[3] == parts.shape[2] * latents.shape[2]
        for figure, shown in zip((first, second), parts.chunk(2, dim=side), strict=True):
            assert torch.equal(shown, base.data.parts(figure[:, 0, 0, 0].long()))
        shares = batch.learned.mean(dim=(1, 2, 3))
        silent = (batch.tokens == base.data.empty).all(dim=1)
        assert torch.equal(shares, torch.where(silent, 1.0, 0.5))


def _caption(base: BaseRecipe, tokens: torch.Tensor) -> str:
    """What tokens say, written as captions are."""
    text = base.pipe.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return text.replace(" - ", "-").replace(" ,", ",")


def test_captions_tell_what_is_asked_in_the_order_that_is_asked(base: BaseRecipe) -> None:
    index = torch.arange(len(base.data.latents))
    records = base.data.pictures.records
    whole, _ = base.data.said(index, EVERYTHING.expand(len(index), -1))
    assert torch.equal(whole, tokenize(base.pipe.tokenizer, [record["caption"] for record in records]))
    who = torch.tensor([aspect in IDENTITY for aspect in ORDER])
    plain, _ = base.data.said(index, EVERYTHING.masked_fill(who, torch.inf).expand(len(index), -1))
    assert torch.equal(plain, tokenize(base.pipe.tokenizer, [record["plain"] for record in records]))
    nothing, about = base.data.said(index, torch.full((len(index), len(ORDER)), torch.inf))
    assert (nothing == base.data.empty).all()
    assert not about.any()
    backwards, _ = base.data.said(index, (20.0 - EVERYTHING).expand(len(index), -1))
    for tokens, record in zip(backwards, records, strict=True):
        said = [record["attributes"][aspect] for aspect in reversed(ORDER) if aspect in record["attributes"]]
        assert _caption(base, tokens) == ", ".join(said)


def test_unknown_words_are_about_nothing(base: BaseRecipe) -> None:
    index = torch.arange(len(base.data.latents))
    told = EVERYTHING.where(torch.tensor([aspect != "hair" for aspect in ORDER]), -EVERYTHING)
    tokens, topics = base.data.said(index, told.expand(len(index), -1))
    whole, about = base.data.said(index, EVERYTHING.expand(len(index), -1))
    hair = about == 1 + [*TOPICS].index("hair")
    assert not topics[hair].any()
    assert torch.isin(tokens[hair], base.data.unknown).all()
    assert torch.equal(tokens[~hair], whole[~hair])
    assert torch.equal(topics[~hair], about[~hair])
    assert not torch.isin(base.data.unknown, whole).any()


def test_every_word_of_a_caption_is_about_what_it_tells(base: BaseRecipe) -> None:
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(len(base.data.latents)).repeat(4)
    told = draw_told(len(index), (0.1, 0.3, 0.6), generator)
    for i, row, topics, places in zip(index.tolist(), *base.data.said(index, told), told, strict=True):
        attributes = base.data.pictures.records[i]["attributes"]
        for aspect, place in zip(ORDER, places.tolist(), strict=True):
            if aspect in TOPICS and aspect in attributes:
                known = 0.0 <= place < float("inf")
                words = row[topics == 1 + [*TOPICS].index(aspect)]
                assert _caption(base, words) == (attributes[aspect] if known else "")


def test_most_captions_are_whole_and_some_are_written_as_people_write() -> None:
    told = draw_told(4000, (0.2, 0.3, 0.5), torch.Generator().manual_seed(0))
    who = torch.tensor([aspect in IDENTITY for aspect in ORDER])
    silent = told.isinf().all(dim=1)
    whole = (told == EVERYTHING).all(dim=1)
    plain = (told == EVERYTHING.masked_fill(who, torch.inf)).all(dim=1)
    assert float(silent.float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float(whole.float().mean()) == pytest.approx((1 - LOOSE) * 0.5, abs=0.03)
    assert float(plain.float().mean()) == pytest.approx((1 - LOOSE) * 0.3, abs=0.03)
    loose = told[~(silent | whole | plain)]
    assert (loose < 0).any(dim=0).all()
    assert loose.isinf().any(dim=0).all()


def test_together_leaves_out_what_is_not_allowed(pictures: PictureSet) -> None:
    allowed = torch.arange(len(pictures)) % SCENES < 2
    allowed[0] = False  # leaves the first character with one picture
    first, second = pictures.together(40, 2, torch.Generator().manual_seed(0), allowed).unbind(1)
    assert allowed[first].all()
    assert allowed[second].all()
    assert (first >= SCENES).all()


def test_reference_unet_and_guider_learn_from_a_step(base: BaseRecipe) -> None:
    pipe = make_referencenet(base.pipe.vae, base.pipe.text_encoder, base.pipe.tokenizer, base.unet)
    recipe = ReferenceNetRecipe(
        pipe, base, shown=base.data, batch=2, readers=1, base_steps=0.0, looking_steps=0.0, same=0.5
    )
    losses = [recipe.loss(4) for _ in range(2)]
    assert torch.equal(losses[0]["loss"], losses[1]["loss"])
    assert losses[0]["loss"] > losses[0]["error"]
    losses[0]["loss"].backward()
    for module in (pipe.unet, pipe.reference_unet, pipe.pose_guider.conv_out):
        assert any(p.grad is not None and p.grad.any() for p in module.parameters())
    for module in recipe.modules.values():
        module.zero_grad()


def test_looking_teaches_the_reference_unet_alone(base: BaseRecipe) -> None:
    pipe = make_referencenet(base.pipe.vae, base.pipe.text_encoder, base.pipe.tokenizer, base.unet)
    recipe = ReferenceNetRecipe(pipe, base, shown=base.data, batch=2, base_steps=0.0, looking_steps=1.0)
    for head in recipe.modules["describer"].heads:
        torch.nn.init.normal_(head.weight, std=0.1)  # at zero, where they begin, they ask the writer for nothing yet
    losses = recipe.loss(1)
    assert losses["loss"] < losses["description"]
    losses["loss"].backward()
    assert any(p.grad is not None and p.grad.any() for p in pipe.reference_unet.parameters())
    for module in (pipe.unet, pipe.pose_guider):
        assert not any(p.grad is not None and p.grad.any() for p in module.parameters())
    for module in recipe.modules.values():
        module.zero_grad()


def test_shares_of_steps_above_one_are_refused(base: BaseRecipe) -> None:
    pipe = make_referencenet(base.pipe.vae, base.pipe.text_encoder, base.pipe.tokenizer, base.unet)
    with pytest.raises(ValueError, match=r"base_steps is 0\.9 and looking_steps 0\.2; expected shares"):
        ReferenceNetRecipe(pipe, base, shown=base.data, base_steps=0.9, looking_steps=0.2)


def test_observer_learns_all_its_heads(pictures: PictureSet) -> None:
    seen = [aspects_of(Scene.from_seeds(record["character"], record["scene"])) for record in pictures.records]
    observer = make_observer(seen)
    losses = ObserverRecipe(observer, pictures, seen, batch=4).loss(0)
    assert losses["loss"].isfinite()
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in observer.parameters())


def test_the_picture_encoder_learns_from_captions_and_aspects_and_the_words_stay(pictures: PictureSet) -> None:
    seen = [aspects_of(Scene.from_seeds(record["character"], record["scene"])) for record in pictures.records]
    tokenizer = make_tokenizer(record["caption"] for record in pictures.records)
    text_encoder = seeded(lambda: make_text_encoder(tokenizer), 0)
    processor, encoder = make_image_processor(), make_image_encoder()
    garments = pictures.pictures[::SCENES]
    recipe = ImageEncoderRecipe(encoder, processor, pictures, garments, seen, text_encoder, tokenizer, batch=6)
    expected = processor(pictures.pictures[0], return_tensors="pt").pixel_values
    torch.testing.assert_close(recipe._ready(pictures.pictures[:1]), expected, atol=1e-5, rtol=0.0)
    losses = recipe.loss(0)
    losses["loss"].backward()
    assert all(losses[name] > 0 for name in ("contrast", "aspects", "garments"))
    assert encoder.visual_projection.weight.grad.any()
    assert all(head.weight.grad is not None for head in recipe.heads.values())  # pyright: ignore
    assert all(parameter.grad is None for parameter in text_encoder.parameters())
    assert torch.equal(recipe.loss(0)["loss"], losses["loss"])
    assert not torch.equal(recipe.loss(1)["loss"], losses["loss"])


def test_scale_makes_latents_of_unit_variance(pictures: PictureSet) -> None:
    vae = make_vae().eval()
    vae.register_to_config(scaling_factor=measure_scale(vae, pictures.pictures))
    assert float(encode(vae, pictures.pictures).std()) == pytest.approx(1.0, rel=1e-3)
    assert VaeRecipe(vae, pictures.pictures, batch=2).loss(0)["loss"].isfinite()


@pytest.mark.slow
def test_everything_is_trained_resumed_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("base", "pose_referencenet"):
        monkeypatch.setattr(f"referencenet.builtin.training.{module}.DRAWN_STEPS", 1)
    settings = Settings(folder=tmp_path, characters=4, scenes=9, batch=4, stretch=0.0003, workers=1, quiet=True)
    with pytest.raises(FileNotFoundError, match="needs the stage vae"):
        train(settings, ["base"])
    told: list[str] = []
    train(settings, tell=told.append)
    assert told == ["pictures", "vae", "base", "guider", "referencenet", "observer", "image_encoder"]
    train(settings)
    assert export(settings, tmp_path / "weights") < 25
    assert not [path for path in (tmp_path / "weights").rglob("*.json") if str(tmp_path) in path.read_text()]
    load("base", folder=tmp_path / "weights")
    load("referencenet", folder=tmp_path / "weights")
    load_observer(folder=tmp_path / "weights")
    assert load_image_encoder(folder=tmp_path / "weights").config.projection_dim == 96
    taught = PoseContext.from_pretrained(settings.result("guider")).state_dict()
    trained = PoseGuider.from_pretrained(settings.result("referencenet") / "pose_guider").context.state_dict()
    for name, value in taught.items():
        torch.testing.assert_close(trained[name], value, atol=1e-3, rtol=0.0)
    further = replace(settings, folder=tmp_path / "further", start=tmp_path / "weights", precision="bf16")
    told.clear()
    train(further, tell=told.append)
    strangers = replace(further, folder=tmp_path / "strangers", characters=3)
    with pytest.raises(ValueError, match="knows other words than these pictures show"):
        train(strangers, ["observer"])
    assert told == ["pictures", "referencenet", "observer", "image_encoder"]
    export(further, tmp_path / "further" / "weights")


def test_the_seed_tells_all_first_weights_and_nothing_outside_changes(tmp_path: Path) -> None:
    first = Settings(folder=tmp_path / "first", characters=4, scenes=9, batch=4, stretch=1e-9, workers=1, quiet=True)
    again = replace(first, folder=tmp_path / "again")
    outside = torch.get_rng_state()
    train(first, ["guider"])
    assert torch.equal(torch.get_rng_state(), outside)
    shutil.copytree(first.folder / "pictures", again.folder / "pictures")
    torch.rand(1)  # what was drawn outside does not matter
    train(again, ["guider"])
    ours, same = (PoseContext.from_pretrained(run.result("guider")).state_dict() for run in (first, again))
    assert all(torch.equal(same[name], value) for name, value in ours.items())


BEFORE = {
    "vae": [2.05311, 1.761908, 1.29384, 1.166931, 1.28074, 1.151571],
    "guider": [0.108478, 0.0978, 0.070233, 0.067478, 0.071934, 0.060278],
}
"""Losses of the first steps by the trainer that came before accelerate's; those of all stages were equal in bits."""


@pytest.mark.slow
def test_losses_are_those_of_the_earlier_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in BEFORE:
        run = SCHEDULES[stage]
        short = replace(run, steps=6, log_every=1, optimizer=replace(run.optimizer, warmup=2))
        monkeypatch.setitem(SCHEDULES, stage, short)
    settings = Settings(folder=tmp_path, characters=10, scenes=4, batch=4, quiet=True, workers=1)
    train(settings, list(BEFORE))
    for stage, losses in BEFORE.items():
        told = [record["loss"] for record in RunFolder(tmp_path / "runs" / stage).records()]
        assert told == pytest.approx(losses, rel=1e-4), stage


def test_unknown_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stage upscaler"):
        train(Settings(folder=tmp_path), ["upscaler"])
