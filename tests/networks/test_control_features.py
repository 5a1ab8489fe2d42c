"""A ControlNet that takes ready features computes what it computes from pictures."""

from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from diffusers.hooks import apply_group_offloading

from referencenet.networks.control_features import control_features, taking_features
from referencenet.networks.layout import TINY_SD15
from referencenet.networks.stable_diffusion import build_controlnet
from tiny import build, latents


@pytest.fixture(params=["rgb", "bgr"])
def controlnet(request: pytest.FixtureRequest) -> Any:
    network: Any = build(lambda: build_controlnet({"unet": TINY_SD15}), 5)
    network.register_to_config(controlnet_conditioning_channel_order=request.param)
    return network


def residuals(network: ControlNetModel, condition: torch.Tensor) -> list[torch.Tensor]:
    context = latents(1, 2, 5, 16)
    down, middle = network(latents(2, 2, 4, 6, 4), 7, context, controlnet_cond=condition, return_dict=False)
    return [*down, middle]


@torch.no_grad()
def test_features_stand_for_pictures(controlnet: Any) -> None:
    pictures = latents(3, 2, 3, 48, 32).sigmoid()
    expected, own = residuals(controlnet, pictures), controlnet.controlnet_cond_embedding
    features = control_features(controlnet, pictures)
    assert features.shape == (2, 8, 6, 4)
    with taking_features(controlnet):
        found = residuals(controlnet, features)
    assert all(map(torch.equal, found, expected))
    assert controlnet.controlnet_cond_embedding is own
    with pytest.raises(KeyError, match="ends"), taking_features(controlnet):
        raise KeyError("ends")
    assert controlnet.controlnet_cond_embedding is own


@torch.no_grad()
def test_where_layers_come_and_go_pictures_stay_pictures(controlnet: Any) -> None:
    pictures = latents(3, 2, 3, 48, 32).sigmoid()
    expected = residuals(controlnet, pictures)
    cpu = torch.device("cpu")
    apply_group_offloading(controlnet, onload_device=cpu, offload_device=cpu, offload_type="leaf_level")
    assert control_features(controlnet, pictures) is pictures
    with taking_features(controlnet):
        assert all(map(torch.equal, residuals(controlnet, pictures), expected))
