"""A UNet with an image prompt is a UNet of diffusers: who exchanges its processors leaves the image prompt alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0

from referencenet.networks.image_prompt import ImagePromptUNet, with_image_prompt
from tiny import latents, tiny_pipeline
from tolerances import ROUNDING, relative_error

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"


@pytest.fixture
def unet() -> ImagePromptUNet:
    return tiny_pipeline("idm_vton").unet


@torch.no_grad()
def predict(unet: Any, picture_seed: int = 2) -> torch.Tensor:
    context = with_image_prompt(latents(1, 2, 7, 32), latents(picture_seed, 2, 4, 32))
    added = {"text_embeds": latents(3, 2, 16), "time_ids": latents(4, 2, 6)}
    return unet(latents(5, 2, 13, 4, 6), 5, context, added_cond_kwargs=added).sample


SWITCHES: dict[str, Callable[[Any], Any]] = {
    "attention slicing": lambda unet: unet.set_attention_slice(1),
    "default processors": lambda unet: unet.set_default_attn_processor(),
    "fused projections": lambda unet: unet.fuse_qkv_projections(),
    "fused and again not": lambda unet: (unet.fuse_qkv_projections(), unet.unfuse_qkv_projections()),
    "one processor for all": lambda unet: unet.set_attn_processor(AttnProcessor2_0()),
    "its own processors": lambda unet: unet.set_attn_processor(unet.attn_processors),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_exchanging_processors_moves_no_number_and_loses_no_weight(switch: str, unet: ImagePromptUNet) -> None:
    expected, keys = predict(unet), set(unet.state_dict())
    SWITCHES[switch](unet)
    assert relative_error(predict(unet), expected) < ROUNDING
    assert relative_error(predict(unet, picture_seed=9), expected) > 1e-3
    assert keys <= set(unet.state_dict())


def test_text_and_picture_are_attended_to_apart_and_added(unet: ImagePromptUNet) -> None:
    layer: Any = unet.get_submodule(LAYER)
    hidden, text, picture = latents(1, 2, 6, 16), latents(2, 2, 7, 32), latents(3, 2, 4, 32)
    found = layer(hidden, with_image_prompt(text, picture))

    def attend(keys: Any, values: Any, context: torch.Tensor) -> torch.Tensor:
        split = [x.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for x in (keys(context), values(context))]
        query = layer.to_q(hidden).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        scores = query @ split[0].transpose(-1, -2) * layer.scale
        return (scores.softmax(-1) @ split[1]).transpose(1, 2).flatten(2)

    own = layer.processor
    read = attend(layer.to_k, layer.to_v, text) + attend(own.to_k_ip[0], own.to_v_ip[0], picture)
    assert relative_error(found, layer.to_out[0](read)) < ROUNDING


def test_queries_are_made_once_and_the_output_is_projected_once(unet: ImagePromptUNet) -> None:
    calls: list[str] = []
    layer: Any = unet.get_submodule(LAYER)
    for name in ("to_q", "to_k", "to_v"):
        getattr(layer, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    layer.to_out[0].register_forward_hook(lambda *_: calls.append("to_out"))
    predict(unet)
    assert sorted(calls) == ["to_k", "to_out", "to_q", "to_v"]


def test_keys_are_those_of_published_files_and_survive_saving(unet: ImagePromptUNet, tmp_path: Path) -> None:
    assert f"{LAYER}.processor.to_k_ip.0.weight" in unet.state_dict()
    expected = predict(unet)
    unet.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert relative_error(predict(ImagePromptUNet.from_pretrained(tmp_path)), expected) < ROUNDING
    assert torch.equal(predict(copy.deepcopy(unet)), expected)


def test_what_would_replace_the_image_prompt_is_refused(unet: ImagePromptUNet) -> None:
    layer: Any = unet.get_submodule(LAYER)
    with pytest.raises(ValueError, match="IPAdapterAttnProcessor2_0 has weights of its own"):
        layer.set_processor(IPAdapterAttnProcessor2_0(16, 32))
    with pytest.raises(ValueError, match="the context is a Tensor, but this UNet reads an image prompt"):
        layer(latents(1, 2, 6, 16), latents(2, 2, 7, 32))


def test_gradients_reach_the_image_prompt_also_with_checkpointing(unet: ImagePromptUNet) -> None:
    unet.train().requires_grad_(True)
    unet.enable_gradient_checkpointing()
    with torch.enable_grad():
        predict.__wrapped__(unet).square().sum().backward()
    assert unet.get_submodule(LAYER).processor.to_k_ip[0].weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_it_compiles_as_a_whole(unet: ImagePromptUNet) -> None:
    expected = predict(unet)
    torch._dynamo.reset()
    assert relative_error(predict(torch.compile(unet, backend="eager", fullgraph=True)), expected) < ROUNDING
    torch._dynamo.reset()
