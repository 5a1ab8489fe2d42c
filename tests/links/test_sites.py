"""Sites are named as the modules are, ranked as published and ordered as a pass reaches them."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel

from models import MODELS, arguments, model
from plain import adain_names, attention_names
from referencenet import AdaIN, Concat, attach
from referencenet.links import adain_sites, attention_sites
from referencenet.links.attach import choose_sites


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_order_is_that_of_a_pass(name: str):
    unet = model(name)
    reached: list[str] = []
    sites = sorted([*attention_sites(unet), *adain_sites(unet)], key=lambda site: site.order)
    handles = [
        unet.get_submodule(site.name).register_forward_hook(lambda *_, name=site.name: reached.append(name))
        for site in sites
    ]
    unet(**arguments(name, 1))
    for handle in handles:
        handle.remove()
    assert reached == [site.name for site in sites]


@pytest.mark.parametrize("weight", [0.01, 0.25, 0.4, 0.5, 0.75, 0.99, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_weights_choose_what_the_specification_says(name: str, weight: float):
    unet = model(name)
    assert {site.name for site in choose_sites(unet, [Concat(weight=weight)])} == {*attention_names(unet, weight)}
    assert {site.name for site in choose_sites(unet, [AdaIN(weight=weight)])} == {*adain_names(unet, weight)}


@pytest.mark.parametrize("name", MODELS)
def test_widths_are_those_of_what_is_written(name: str):
    unet = model(name)
    with attach(unet, [Concat(), AdaIN()]) as link, torch.no_grad():
        bank = link.write(**arguments(name, 2), projected=False)
    for site in link.sites:
        if site.kind == "attention":
            assert bank.hidden[site.name].shape[-1] == site.width
        elif site.width:
            assert bank.statistics[site.name][0].shape == (2, site.width)


def test_motion_modules_are_no_sites():
    names = [site.name for site in [*attention_sites(model("motion")), *adain_sites(model("motion"))]]
    assert names
    assert not [name for name in names if "motion" in name]


def test_a_unet_without_transformers_has_no_attention_sites():
    plain = UNet2DModel(
        sample_size=8,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    )
    with pytest.raises(TypeError, match="UNet2DModel has no place"), attach(plain):
        pass
