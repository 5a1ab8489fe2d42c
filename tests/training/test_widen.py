"""Networks grown wider compute what they computed."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from referencenet.networks.pose_guider import PoseGuider
from referencenet.training.base import make_unet
from referencenet.training.widen import widen


def unet(*widths: int) -> UNet2DConditionModel:
    """Convolutions and time embedding only."""
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        mid_block_type="UNetMidBlock2D",
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=8,
        norm_num_groups=4,
    ).eval()


@torch.no_grad()
def test_doubled_unet_predicts_the_same_and_its_copies_differ() -> None:
    narrow, wide = unet(8, 16), unet(16, 32)
    widen(narrow, wide, torch.Generator().manual_seed(1))
    given = torch.randn(3, 4, 8, 8), torch.tensor([0, 17, 999]), torch.randn(3, 2, 8)
    torch.testing.assert_close(wide(*given).sample, narrow(*given).sample, rtol=1e-4, atol=1e-5)
    for name, parameter in wide.named_parameters():
        if name.endswith("conv1.weight"):
            first, second = parameter[:, ::2], parameter[:, 1::2]
            assert float((first - second).abs().mean()) > 0.1 * float((first + second).abs().mean())


@torch.no_grad()
def test_of_joined_inputs_only_the_second_may_grow() -> None:
    narrow, wide = nn.Conv2d(6, 5, 1), nn.Conv2d(8, 5, 1)
    widen(narrow, wide, torch.Generator().manual_seed(0))
    first, second = torch.randn(1, 4, 3, 3), torch.randn(1, 2, 3, 3)
    grown = torch.cat([first, second.repeat_interleave(2, dim=1)], dim=1)
    torch.testing.assert_close(wide(grown), narrow(torch.cat([first, second], dim=1)))


@torch.no_grad()
def test_pose_guider_gives_each_feature_twice() -> None:
    narrow, wide = PoseGuider(), PoseGuider(conditioning_embedding_channels=64)
    nn.init.normal_(narrow.conv_out.weight)
    widen(narrow, wide, torch.Generator())
    picture = torch.rand(1, 3, 16, 16)
    assert torch.equal(wide(picture), narrow(picture).repeat_interleave(2, dim=1))


def test_what_cannot_grow_is_named() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match=r"from 2 to 5 channels; expected at most twice"):
        widen(nn.Linear(2, 2), nn.Linear(5, 2), generator)
    with pytest.raises(ValueError, match="differ in bias"):
        widen(nn.Linear(2, 2, bias=False), nn.Linear(4, 2), generator)
    with pytest.raises(ValueError, match="cannot become 24"):
        widen(unet(16), unet(24), generator)
    config = {**make_unet().config, "attention_head_dim": 2}
    narrow = UNet2DConditionModel.from_config({**config, "block_out_channels": (64, 64, 96, 80)})
    with pytest.raises(ValueError, match="is of an attention, which cannot grow"):
        widen(narrow, UNet2DConditionModel.from_config(config), generator)
