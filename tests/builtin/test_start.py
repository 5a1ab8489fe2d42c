"""Every system on the drawn world: what it grows from, what is new, and that nothing is disturbed before it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from copies import made_once
from referencenet.builtin.graft import Graft, graft, with_reference_attention, with_second_attention
from referencenet.builtin.load import WEIGHTS, load, load_observer
from referencenet.builtin.start import NEW, TASKS, is_shipped, load_system, start_pipeline
from referencenet.builtin.starts import STARTS
from referencenet.builtin.toys import make_speech_model
from referencenet.links.attach import write
from referencenet.networks.audio_attention import Held
from referencenet.training.recipes.index import recipes

SHAPE = (2, 4, 16, 12)
WORDS = ["stripes", "a person, waving"]


@made_once
def shipped() -> Any:
    return load("referencenet")


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


def words() -> Tensor:
    pipe = shipped()
    ids = pipe.tokenizer(WORDS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return pipe.text_encoder(ids)[0]


def drawn(system: str, pipe: Any, latents: Tensor, context: Tensor) -> Tensor:
    """The denoiser's prediction, reading nothing, of single frames or pictures."""
    unet = pipe.unet
    beside: dict[str, Any] = {}
    if system in ("animate_anyone", "aniportrait", "magic_animate", "diffportrait3d"):
        return unet(latents.unsqueeze(2), 300, context, return_dict=False)[0].squeeze(2)
    if system == "hallo":
        return unet(latents.unsqueeze(2), 300, [Held(context)], return_dict=False)[0].squeeze(2)
    if system == "flashface":
        latents = torch.cat([latents, noise(3, 2, 1, *SHAPE[2:])], dim=1)
    if system == "idm_vton":
        latents = torch.cat([latents, noise(3, 2, 9, *SHAPE[2:])], dim=1)
        context = torch.cat([context, noise(4, *context.shape)], dim=2)
        beside = {"added_cond_kwargs": {"text_embeds": noise(5, 2, 96), "time_ids": torch.ones(2, 6) * 64}}
    if system in ("idm_vton", "parts2whole"):
        context = (context, [noise(6, 2, 4, context.shape[2])])
    return unet(latents, 300, context, return_dict=False, **beside)[0]


@made_once
def start(system: str) -> Any:
    return start_pipeline(system)


QUICK = {"flashface", "hallo", "idm_vton", "magicpose", "parts2whole"}
"""One of each kind; the others are checked with the slow tests."""


def systems(*without: str) -> list[Any]:
    names = [name for name in recipes() if name not in without]
    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in names]


@pytest.mark.parametrize("system", systems("emo"))  # EMO reads no words
def test_a_system_that_reads_nothing_draws_what_the_base_draws(system: str) -> None:
    latents, context = noise(1), words()
    with torch.no_grad():
        expected = shipped().unet(latents, 300, context, return_dict=False)[0]
        found = drawn(system, start(system), latents, context)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("system", systems())
def test_the_writer_is_the_shipped_reference_unet(system: str) -> None:
    writer, context = start(system).reference_unet, words()
    with torch.no_grad():
        expected = write(shipped().reference_unet, noise(2), encoder_hidden_states=context).hidden
        if system == "idm_vton":
            context = torch.cat([context, noise(4, *context.shape)], dim=2)
        found = write(writer, noise(2), encoder_hidden_states=None if system == "emo" else context).hidden
    assert found.keys() == expected.keys()
    first = next(iter(found))
    for name in [first] if system == "emo" else found:  # behind the first layer EMO's lacks the words
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=2e-5)


def test_a_first_convolution_and_a_context_may_be_wider_and_nothing_else() -> None:
    network = nn.ModuleDict({"conv_in": nn.Conv2d(3, 2, 1), "out": nn.Linear(2, 2)})
    found = graft(network, {"conv_in.weight": torch.ones(2, 1, 1, 1), "gone": torch.ones(1)}, silent=[r"out\.bias"])
    assert found == Graft(new=("conv_in.bias", "out.bias", "out.weight"), left=("gone",))
    assert network.conv_in.weight[:, :, 0, 0].tolist() == [[1.0, 0.0, 0.0]] * 2  # pyright: ignore
    assert not network.out.bias.any()  # pyright: ignore
    with pytest.raises(ValueError, match=r"out.weight is \(2, 2\), and its weights are \(2, 1\)"):
        graft(network, {"out.weight": torch.ones(2, 1)})


def test_a_second_attention_begins_as_the_first_in_the_middle_and_above() -> None:
    given = {
        f"{place}.attn1.to_q.weight": torch.full((1,), float(i))
        for i, place in enumerate(["down_blocks.0", "mid_block.attentions.0"])
    }
    found = with_second_attention(given)
    assert found.keys() - given.keys() == {"mid_block.attentions.0.attn1.reference.to_q.weight"}
    assert float(found["mid_block.attentions.0.attn1.reference.to_q.weight"]) == 1


def test_attention_to_a_reference_alone_begins_as_that_beside_own_tokens_and_each_gives_half() -> None:
    block = "mid_block.attentions.0.transformer_blocks.0"
    given = {f"{block}.{name}.weight": torch.full((2,), float(i)) for i, name in enumerate(
        ["norm1", "attn1.to_q", "attn1.to_out.0", "norm2", "attn2.to_q", "attn2.to_out.0", "norm3"], start=1
    )}  # fmt: skip
    given |= {"mid_block.resnets.0.norm2.weight": torch.full((3,), 8.0)}
    found = with_reference_attention(given)
    assert [float(found[name][0]) for name in given] == [1.0, 2.0, 1.5, 1.0, 2.0, 1.5, 7.0, 8.0]


def test_emo_reads_what_the_heads_self_attentions_read() -> None:
    pipe, heads = STARTS["portrait"]("emo"), STARTS["portrait"]("hallo")
    assert pipe.config.reference_feature == "norm1"
    block = "mid_block.attentions.0.transformer_blocks.0"
    read, own = pipe.unet.get_submodule(f"{block}.attn2"), heads.unet.get_submodule(f"{block}.attn1")
    assert torch.equal(read.to_k.weight, own.to_k.weight)
    assert torch.equal(read.to_out[0].weight * 2, own.to_out[0].weight)


def test_what_is_new_is_drawn_from_a_seed() -> None:
    one, same, other = (start_pipeline("idm_vton", seed=seed) for seed in (0, 0, 1))
    key = "layers.0.attn.to_q.weight"
    states = [pipe.image_projection.state_dict() for pipe in (one, same, other)]
    assert torch.equal(states[0][key], states[1][key])
    assert not torch.equal(states[0][key], states[2][key])
    assert not any(parameter.requires_grad for parameter in one.unet.parameters())


def test_the_second_text_model_of_sdxl_says_what_the_shipped_one_says() -> None:
    pipe = start("idm_vton")
    ids = pipe.tokenizer(WORDS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        shipped_says = shipped().text_encoder(ids, output_hidden_states=True)
        second = pipe.text_encoder_2(ids, output_hidden_states=True)
    torch.testing.assert_close(second.text_embeds, shipped_says.pooler_output)
    norm = shipped().text_encoder.final_layer_norm
    torch.testing.assert_close(norm(second.hidden_states[-2]), shipped_says.last_hidden_state)


def test_weights_that_are_not_shipped_are_named(tmp_path: Path) -> None:
    for system in recipes():
        assert is_shipped(system) == all((WEIGHTS / task).is_dir() for task in TASKS.get(system, ("none",)))
    with pytest.raises(FileNotFoundError, match="no built-in weights 'magicpose' are shipped"):
        load_system("magicpose")
    with pytest.raises(ValueError, match="no recipe for 'nothing'"):
        load_system("nothing")
    with pytest.raises(FileNotFoundError, match="no built-in weights in"):
        start_pipeline("idm_vton", folder=tmp_path)


def test_what_has_learned_heads_is_told_of_systems_that_draw_none() -> None:
    with pytest.raises(ValueError, match=r"idm_vton does not begin with heads, as hallo, .*aniportrait, emo do"):
        STARTS["portrait"]("idm_vton")


def test_expectations_are_of_systems_that_there_are() -> None:
    assert {system for system, _ in NEW} <= set(recipes())
    assert TASKS.keys() <= set(recipes())


def test_a_face_has_the_numbers_of_the_observer() -> None:
    assert start("hallo").face_projection.config.embedding_dim == load_observer().config.embedding_dim


def test_the_speech_model_is_always_the_same() -> None:
    state = torch.random.get_rng_state()
    one, other = (make_speech_model().state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
