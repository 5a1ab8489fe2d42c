"""Networks whose levels have unequally many layers or other widths than the released ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from referencenet.networks.landmark_guider import LandmarkGuider
from referencenet.networks.level_controlnet import LevelControlNet
from referencenet.networks.stable_diffusion import build_controlnet

CONFIG: dict[str, Any] = {
    "in_channels": 4,
    "block_out_channels": (8, 8, 16),
    "layers_per_block": (2, 1, 3),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "cross_attention_dim": 6,
    "attention_head_dim": (1, 2, 2),
    "norm_num_groups": 4,
    "conditioning_embedding_out_channels": (4, 8),
}
UP = {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")}


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_controlnet_gives_a_residual_for_each_layer_of_its_unet(tmp_path: Path) -> None:
    net = build_controlnet({"unet": CONFIG})
    assert isinstance(net, LevelControlNet)
    assert [len(block.resnets) for block in net.down_blocks] == [2, 1, 3]  # pyright: ignore
    unet_config = {k: v for k, v in CONFIG.items() if not k.startswith("conditioning")}
    unet = UNet2DConditionModel(**unet_config, **UP)
    assert net.load_state_dict({k: v for k, v in unet.state_dict().items() if k in net.state_dict()}, strict=False)
    latents, context = noise(2, 4, 8, 12), noise(2, 5, 6)
    with torch.no_grad():
        down, middle = net(latents, 3, context, noise(2, 3, 16, 24), return_dict=False)
        told = [torch.ones_like(each) for each in down]
        plain = unet(latents, 3, context).sample
        controlled = unet(latents, 3, context, down_block_additional_residuals=told,
                          mid_block_additional_residual=middle).sample  # fmt: skip
    assert len(down) == 1 + (2 + 1) + (1 + 1) + 3
    assert not any(each.any() for each in (*down, middle))  # zero convolutions
    assert not torch.allclose(controlled, plain)
    net.save_pretrained(tmp_path)
    again = LevelControlNet.from_pretrained(tmp_path)
    assert list(again.config.layers_per_block) == [2, 1, 3]
    assert again.state_dict().keys() == net.state_dict().keys()


def test_one_number_of_layers_is_diffusers_own_network() -> None:
    assert type(build_controlnet({"unet": CONFIG | {"layers_per_block": 1}})).__name__ == "ControlNetModel"


def test_numbers_of_layers_for_other_levels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layers_per_block is \[2, 1\] for 3 levels"):
        LevelControlNet(**CONFIG | {"layers_per_block": (2, 1)})


@pytest.mark.parametrize(("factor", "side"), [(1, 48), (2, 24), (4, 12), (8, 6)])
def test_a_guider_of_landmarks_has_the_latents_sizes_and_the_given_widths(factor: int, side: int) -> None:
    guider = LandmarkGuider(32, heads=1, head_dim=4, widths=(32, 64, 96, 32), factor=factor)
    found = guider(noise(3, 3, 48, 96), published_norm=True)
    sides = [side, side // 2, -(-side // 4), -(-side // 8), -(-side // 8)]
    assert [tuple(level.shape[1:3]) for level in found] == list(zip((32, 32, 64, 96, 32), sides, strict=True))


def test_a_guider_refuses_other_factors_and_numbers_of_widths() -> None:
    with pytest.raises(ValueError, match="factor is 3"):
        LandmarkGuider(32, factor=3)
    with pytest.raises(ValueError, match="one width for each of the four"):
        LandmarkGuider(32, widths=(32, 64))
    with pytest.raises(ValueError, match="sides that 2 divides"):
        LandmarkGuider(32, heads=1, head_dim=4, factor=2)(noise(1, 3, 7, 8))
