"""The arms of the comparison of links: each starts from the base, reads its reference, and teaches its writer."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from link_arms import ARMS, Shown
from torch.nn import functional as F

ADDED_AT_ZERO = ("second", "prompt")
"""Arms whose new layers add nothing at first, to a network that is otherwise the base."""
READING = [name for name in ARMS if name != "none"]


@pytest.fixture(scope="module")
def base():
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch.Generator().manual_seed(0).get_state())
        return UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 48),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=(2, 3),
            norm_num_groups=16,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        ).eval()


@pytest.fixture(scope="module")
def given():
    generator = torch.Generator().manual_seed(1)
    return {
        "references": torch.randn(2, 4, 8, 8, generator=generator),
        "silence": torch.randn(1, 5, 16, generator=generator),
        "figure": F.pad(torch.ones(2, 1, 8, 8), (4, 4, 4, 4)),
        "noised": torch.randn(4, 4, 8, 8, generator=generator),
        "words": torch.randn(4, 5, 16, generator=generator),
    }


def predicted(arm, networks, given, reads, *, swapped=False):
    references = given["references"].flip(0) if swapped else given["references"]
    shown = Shown(latents=references, silence=given["silence"], figure=given["figure"])
    with arm.linked(networks, shown, reads) as predict:
        return predict(given["noised"], torch.full((4,), 500), given["words"])


def woken(networks):
    """The networks with the layers that begin at zero filled, as some training leaves them."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for network in networks.values():
            for parameter in network.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1, generator=generator)
    return networks


@pytest.mark.parametrize("name", ADDED_AT_ZERO)
def test_new_layers_add_nothing_at_first(name, base, given):
    with torch.no_grad():
        linked = predicted(ARMS[name], ARMS[name].networks(base), given, [1.0] * 4)
        plain = base(given["noised"], 500, given["words"]).sample
    assert torch.allclose(linked, plain, atol=1e-5)


@pytest.mark.parametrize("name", READING)
@torch.no_grad()
def test_rows_that_read_see_their_own_reference_and_the_others_none(name, base, given):
    arm = ARMS[name]
    networks = woken(arm.networks(base))
    reads = [1.0, 0.0, 1.0, 0.0]
    own, swapped = (predicted(arm, networks, given, reads, swapped=swapped) for swapped in (False, True))
    cut = predicted(arm, networks, given, [0.0] * 4)
    assert torch.allclose(own[1::2], cut[1::2], atol=1e-5)
    assert torch.allclose(own[1::2], swapped[1::2], atol=1e-5)
    for row in (0, 2):
        assert (own[row] - cut[row]).norm() > 1e-4 * cut[row].norm()
        assert (own[row] - swapped[row]).norm() > 1e-5 * cut[row].norm()


@pytest.mark.parametrize("name", READING)
def test_the_writer_learns_from_what_is_drawn(name, base, given):
    networks = woken(ARMS[name].networks(base))
    predicted(ARMS[name], networks, given, [1.0] * 4).square().mean().backward()
    first = networks["writer"].conv_in.weight.grad
    assert first is not None
    assert first.norm() > 0


def test_the_mask_hides_what_stands_outside_of_the_figure(base, given):
    arm = ARMS["masked"]
    networks = arm.networks(base)
    shown = Shown(latents=given["references"], silence=given["silence"], figure=given["figure"])
    with torch.no_grad():
        states = arm.write(networks, shown).hidden["up_blocks.1.attentions.0.transformer_blocks.0.attn1"]
    table = states.unflatten(1, (8, 8)).norm(dim=-1)
    assert not table[:, 0].any()
    assert table[:, 3:5, 3:5].all()
