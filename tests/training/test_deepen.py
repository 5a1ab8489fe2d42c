"""UNets grown deeper compute what they computed."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from referencenet.training.deepen import deepen


def unet(*layers: int, width: int = 8) -> UNet2DConditionModel:
    """Two levels, the second with attention."""
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(width, 16),
        layers_per_block=layers,  # pyright: ignore[reportArgumentType]
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


@pytest.mark.parametrize(("before", "after"), [(1, 2), (1, 4), (2, 3)])
def test_deeper_unet_predicts_the_same_and_goes_on_learning(before: int, after: int) -> None:
    shallow, deep = unet(before, 1), unet(after, 1)
    deepen(shallow, deep)
    given = torch.randn(3, 4, 8, 8), torch.tensor([0, 17, 999]), torch.randn(3, 2, 8)
    predicted = deep(*given).sample
    torch.testing.assert_close(predicted, shallow(*given).sample, rtol=1e-4, atol=1e-5)
    predicted.square().mean().backward()
    for block in (deep.down_blocks[0].resnets[-1], deep.up_blocks[1].resnets[1]):
        assert float(block.conv2.weight.grad.abs().max()) > 0.0


def test_what_else_differs_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"differ in 52 weights, the first of which is down_blocks\.1\.attentions\.1\."
    ):
        deepen(unet(1, 1), unet(1, 2))
    with pytest.raises(ValueError, match=r"the first of which is conv_in\.bias; expected the same blocks"):
        deepen(unet(1, 1), unet(2, 1, width=16))
