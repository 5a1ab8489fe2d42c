"""The pose guider: sizes, the zero it starts from, and how it reaches the UNet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from referencenet.networks.pose_guider import PoseGuider, added_after_first_convolution


@pytest.mark.parametrize(("batch", "height", "width"), [(2, 8, 12), (3, 4, 20)])
@pytest.mark.parametrize("widths", [(5,), (5, 7), (3, 5, 7)])
def test_features_lie_on_the_latents_and_start_at_zero(
    batch: int, height: int, width: int, widths: tuple[int, ...]
) -> None:
    guider = PoseGuider(conditioning_embedding_channels=11, block_out_channels=widths)
    factor = 2 ** (len(widths) - 1)
    features = guider(torch.rand(batch, 3, height, width))
    assert guider.factor == factor
    assert features.shape == (batch, 11, height // factor, width // factor)
    assert not features.any()


def test_guider_survives_its_folder(tmp_path: Path) -> None:
    guider = PoseGuider(block_out_channels=(4, 6))
    nn.init.normal_(guider.conv_out.weight, generator=torch.Generator().manual_seed(0))
    guider.save_pretrained(tmp_path)
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(PoseGuider.from_pretrained(tmp_path)(picture), guider(picture))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 3, 9, 8)])
def test_wrong_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pose picture has shape"):
        PoseGuider(block_out_channels=(4, 6))(torch.zeros(shape))


def test_addition_is_taken_away_again_after_an_exception() -> None:
    model = nn.Module()
    model.conv_in = nn.Conv2d(2, 3, 1)
    x = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    before = model.conv_in(x)
    with added_after_first_convolution(model, torch.ones(1, 3, 4, 4)):
        assert torch.equal(model.conv_in(x), before + 1)
    with pytest.raises(RuntimeError, match="channels"), added_after_first_convolution(model, torch.ones(1, 3, 4, 4)):
        model.conv_in(torch.rand(1, 5, 4, 4))
    assert torch.equal(model.conv_in(x), before)
    assert not model.conv_in._forward_hooks


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 24), (20, 12)])
def test_context_sees_the_whole_picture(height: int, width: int) -> None:
    guider = PoseGuider(conditioning_embedding_channels=6, block_out_channels=(4, 6), context_channels=8)
    picture = torch.rand(2, 3, height, width)
    assert guider(picture).shape == (2, 6, height // 2, width // 2)
    changed = picture.clone()
    changed[:, :, :2, :2] = 0
    assert (guider(picture) != guider(changed))[:, :, -1, -1].any()  # the other corner knows


def test_context_survives_its_folder_and_is_not_there_unasked(tmp_path: Path) -> None:
    guider = PoseGuider(block_out_channels=(4, 6), context_channels=8)
    guider.save_pretrained(tmp_path)
    picture = torch.rand(1, 3, 8, 8)
    assert torch.equal(PoseGuider.from_pretrained(tmp_path)(picture), guider(picture))
    assert not [name for name in PoseGuider().state_dict() if "context" in name]
