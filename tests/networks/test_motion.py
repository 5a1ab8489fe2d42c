"""The spatio-temporal denoiser: the span of its norm, its condition, and the shortcut for one context token."""

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, SlicedAttnProcessor

from referencenet.methods.tiny import filled
from referencenet.networks.layout import TINY_SD15 as TINY_UNET
from referencenet.networks.layout import film_config
from referencenet.networks.motion import AddingConv2d, FrameGroupNorm, SpatioTemporalUNet
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.networks.single_token import SingleTokenAttention
from tolerances import ROUNDING, relative_error

CONFIG = film_config(TINY_UNET)

FLAT = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def test_clip_norm_is_diffusers_own_and_frame_norm_is_not() -> None:
    sample, context = noise(2, 4, 3, 5, 6), noise(2, 1, 16)
    stock = filled(UNetMotionModel(**CONFIG), 1)(sample, 7, context.repeat_interleave(3, 0)).sample
    assert relative_error(filled(SpatioTemporalUNet("clip", **CONFIG), 1)(sample, 7, context).sample, stock) <= ROUNDING
    assert relative_error(filled(SpatioTemporalUNet(**CONFIG), 1)(sample, 7, context).sample, stock) > 1e-2
    with pytest.raises(ValueError, match="motion_norm is 'film'"):
        SpatioTemporalUNet("film", **CONFIG)  # pyright: ignore[reportArgumentType]


def test_resnets_may_normalise_the_clip_and_one_frame_is_a_clip_of_its_own() -> None:
    sample, context = noise(2, 4, 3, 5, 6), noise(2, 2, 16)
    frames, clip = (filled(SpatioTemporalUNet(resnet_norm=span, **CONFIG), 1) for span in ("frame", "clip"))
    assert relative_error(clip(sample, 7, context).sample, frames(sample, 7, context).sample) > 1e-2
    one = sample[:, :, :1]
    assert relative_error(clip(one, 7, context).sample, frames(one, 7, context).sample) <= ROUNDING
    norm, hidden = clip.down_blocks[0].resnets[0].norm1, noise(6, 8, 5, 2)
    clip.length.frames = 3
    together = torch.nn.functional.group_norm(
        hidden.view(2, 3, 8, 5, 2).transpose(1, 2), norm.num_groups, norm.weight, norm.bias
    )
    assert relative_error(norm(hidden), together.transpose(1, 2).flatten(0, 1)) <= ROUNDING
    clip.length.frames = None
    with pytest.raises(RuntimeError, match="run it as a part of its UNet"):
        norm(hidden)


def test_frame_norm_equals_the_norm_of_each_frame() -> None:
    norm, clip = filled(FrameGroupNorm(2, 4), 1), noise(2, 4, 3, 5, 2)
    frames = [torch.nn.functional.group_norm(clip[:, :, f], 2, norm.weight, norm.bias) for f in range(3)]
    assert relative_error(norm(clip), torch.stack(frames, dim=2)) <= ROUNDING


def test_condition_is_added_behind_the_first_convolution() -> None:
    unet, sample, context = filled(SpatioTemporalUNet(**CONFIG), 1), noise(2, 4, 3, 5, 6), noise(2, 1, 16)
    condition = noise(2, 8, 3, 5, 6)
    folded = condition.transpose(1, 2).flatten(0, 1)
    with unet.conv_in.register_forward_hook(lambda _m, _a, output: output + folded):
        expected = unet(sample, 7, context).sample
    assert relative_error(unet(sample, 7, context, condition=condition).sample, expected) <= ROUNDING
    with pytest.raises(ValueError, match=r"expected \(2, 8, 3, 5, 6\): one feature map per frame"):
        unet(sample, 7, context, condition=condition[:, :, :1])
    with pytest.raises(ValueError, match="encoder_hidden_states has 3 rows for 2 samples of 3 frames; expected 2 or 6"):
        unet(sample, 7, noise(3, 1, 16))


@pytest.mark.parametrize("tokens", [1, 4])
def test_single_token_shortcut_is_exact(tokens: int) -> None:
    unet, sample, context = filled(SpatioTemporalUNet(**CONFIG), 1), noise(2, 4, 2, 5, 6), noise(2, tokens, 16)
    quick = unet(sample, 7, context).sample
    for module in unet.modules():
        if isinstance(module, SingleTokenAttention):
            module.__class__ = Attention
    assert relative_error(quick, unet(sample, 7, context).sample) <= ROUNDING


def test_adding_convolution_adds() -> None:
    conv, picture, addend = filled(AddingConv2d(2, 3, 3, padding=1), 1), noise(1, 2, 5, 4), noise(1, 3, 5, 4)
    assert torch.allclose(conv(torch.cat([picture, addend], dim=1)), conv(picture) + addend, atol=1e-6)


@torch.no_grad()
def test_a_picture_unet_becomes_a_film_unet_as_in_diffusers() -> None:
    flat = filled(UNet2DConditionModel(**FLAT), 1)
    motion = {"motion_layers_per_block": 1, "motion_num_attention_heads": 2, "motion_norm_num_groups": 4}
    adapter = filled(MotionAdapter(block_out_channels=(8, 16), **motion, motion_max_seq_length=8), 2)
    sample, context = noise(1, 4, 3, 8, 8), noise(3, 5, 16)
    stock = UNetMotionModel.from_unet2d(flat, adapter)
    ours = SpatioTemporalUNet.from_unet2d(flat, adapter)
    assert isinstance(ours, SpatioTemporalUNet)
    assert ours.config["motion_norm"] == "frame"
    assert {name: torch.equal(value, ours.state_dict()[name]) for name, value in stock.state_dict().items()} == {
        name: True for name in stock.state_dict()
    }
    still = noise(1, 4, 1, 8, 8)  # of one frame, where both norms are one
    assert relative_error(ours(still, 7, context[:1]).sample, stock(still, 7, context[:1]).sample) <= ROUNDING
    assert ours(sample, 7, context).sample.isfinite().all()


SWITCHES = {
    "default": lambda unet: unet.set_default_attn_processor(),
    "sliced": lambda unet: unet.set_attn_processor(SlicedAttnProcessor(1)),
    "sliced and again not": lambda unet: (SWITCHES["sliced"](unet), unet.set_attn_processor(AttnProcessor2_0())),
    "fused": lambda unet: unet.fuse_qkv_projections(),
}


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("kind", ["film", "reference"])
@torch.no_grad()
def test_whichever_processor_sits_there_single_tokens_need_no_queries(kind: str, switch: str) -> None:
    if kind == "film":
        unet, sample = filled(SpatioTemporalUNet(**CONFIG), 1), noise(2, 4, 2, 5, 6)
    else:
        unet, sample = filled(ReferenceUNet(**FLAT), 1), noise(2, 4, 8, 8)
    context = noise(2, 1, 16)
    before = unet(sample, 7, context, return_dict=False)[0]
    SWITCHES[switch](unet)
    name = next(name for name, _ in unet.named_modules() if name.endswith("attn2") and ".attentions." in name)
    queries: list[int] = []
    with unet.get_submodule(f"{name}.to_q").register_forward_hook(lambda *_: queries.append(1)):
        assert relative_error(unet(sample, 7, context, return_dict=False)[0], before) <= ROUNDING
        assert not queries
        unet(sample, 7, noise(2, 2, 16))
        assert queries or switch == "fused"
