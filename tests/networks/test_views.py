"""View modules: where they stand, what they mix, and which groups the middle one serves."""

import copy
from typing import Any

import pytest
import torch

from referencenet.methods.tiny import filled
from referencenet.networks.layout import SD15_UNET, TINY_SD15, film_config
from referencenet.networks.views import MiddleViewModule, ViewModule, ViewUNet
from tolerances import ROUNDING, relative_error


def unet() -> ViewUNet:
    with torch.random.fork_rng(devices=[]):
        return filled(ViewUNet(**film_config(TINY_SD15)), 0)


def inputs(groups: int = 2, views: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(groups, 4, views, 6, 10, generator=generator),
        torch.randn(groups, 5, 16, generator=generator),
    )


def test_there_are_27_at_the_published_size_and_their_places_are_those_of_the_release() -> None:
    with torch.device("meta"):
        network = ViewUNet(**film_config(SD15_UNET))
    places = [name for name, module in network.named_modules() if isinstance(module, ViewModule)]
    assert len(places) == 27
    assert sum("downsamplers" in place for place in places) == 3
    assert sum("upsamplers" in place for place in places) == 6
    assert [place for place in places if "mid_block" in place] == ["mid_block.motion_modules.0"]
    assert isinstance(network.get_submodule("mid_block.motion_modules.0"), MiddleViewModule)


def test_groups_do_not_see_each_other_and_views_of_a_group_do() -> None:
    network, (x, context) = unet(), inputs()
    changed = x.clone()
    changed[0, :, 0] += 1
    before, after = network(x, 5, context).sample, network(changed, 5, context).sample
    assert torch.equal(after[1], before[1])
    assert relative_error(after[0, :, 2], before[0, :, 2]) > 1e-4
    assert relative_error(network(x[1:], 5, context[1:]).sample, before[1:]) < ROUNDING


def test_the_middle_module_runs_for_the_groups_that_are_named() -> None:
    network, (x, context) = unet(), inputs()
    results = {middle: network(x, 5, context, middle=middle).sample for middle in ((True, True), (True, False))}
    none = network(x, 5, context, middle=(False, False)).sample
    assert torch.equal(network(x, 5, context).sample, results[True, True])
    mixed = results[True, False]
    assert relative_error(mixed[0], results[True, True][0]) < ROUNDING
    assert relative_error(mixed[1], none[1]) < ROUNDING
    assert relative_error(mixed[0], none[0]) > 1e-5
    with pytest.raises(ValueError, match="middle has 1 entries for 2 groups"):
        network(x, 5, context, middle=(True,))


def test_every_view_may_have_its_own_timestep_and_context() -> None:
    network, (x, context) = unet(), inputs()
    plain = network(x, 5, context).sample
    each = network(x, torch.full((6,), 5), context.repeat_interleave(3, dim=0)).sample
    assert relative_error(each, plain) < ROUNDING
    assert relative_error(network(x, torch.tensor([5, 900, 5, 5, 5, 5]), context).sample, plain) > 1e-3


def test_a_module_outside_of_its_unet_and_a_copy_of_it_are_told_nothing() -> None:
    network, (x, context) = unet(), inputs()
    module: Any = network.get_submodule("down_blocks.0.motion_modules.0")
    with pytest.raises(RuntimeError, match="run it as a part of its UNet"):
        module(torch.zeros(6, 8, 2, 2))
    twin = copy.deepcopy(network)
    assert torch.equal(twin(x, 5, context).sample, network(x, 5, context).sample)
    assert network.told.views is None
    with pytest.raises(RuntimeError, match="shape"):
        network(x, 5, context[:, :, :3])
    assert (network.told.views, network.told.middle) == (None, None)


def test_a_saved_network_is_read_again(tmp_path: Any) -> None:
    network, (x, context) = unet(), inputs()
    network.save_pretrained(tmp_path)
    read = ViewUNet.from_pretrained(tmp_path)
    assert torch.equal(read(x, 5, context).sample, network(x, 5, context).sample)  # pyright: ignore[reportCallIssue]
    assert not read._supports_gradient_checkpointing
