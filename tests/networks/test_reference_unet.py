"""The reference UNet and its cut form: it writes the same bank with fewer tensors."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from referencenet.checkpoints.keys.reference_tail import CUT_TAIL
from referencenet.links.attach import write
from referencenet.networks.layout import SD15_UNET, picture_config
from referencenet.networks.layout import TINY_SD15 as TINY_UNET
from referencenet.networks.reference_unet import ReferenceUNet
from tiny import fill, latents

TALL = TINY_UNET | {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
                    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}  # fmt: skip
"""Its last self-attention is not in the last block."""


def pair(config: dict[str, Any]) -> tuple[ReferenceUNet, ReferenceUNet]:
    """A whole and a cut reference UNet with the same weights."""
    whole = ReferenceUNet(**config).eval()
    fill(whole, 1)
    cut = ReferenceUNet(**config, cut=True).eval()
    state = whole.state_dict()
    cut.load_state_dict({key: state[key] for key in cut.state_dict()})
    return whole, cut


@pytest.mark.parametrize("config", [TINY_UNET, TALL], ids=["attention last", "attention before the last block"])
def test_cut_reference_unet_writes_the_same_bank(config: dict[str, Any]) -> None:
    whole, cut = pair(config)
    sample, context = latents(0, 2, 4, 6, 10), latents(1, 2, 3, config["cross_attention_dim"])
    expected = write(whole, sample, encoder_hidden_states=context)
    written = write(cut, sample, encoder_hidden_states=context)
    assert list(written.hidden) == list(expected.hidden)
    assert all(torch.equal(written.hidden[name], hidden) for name, hidden in expected.hidden.items())


def test_cut_reference_unet_runs_to_its_end_and_trains_under_checkpointing() -> None:
    _, cut = pair(TINY_UNET)
    cut.enable_gradient_checkpointing()
    cut.train()
    bank = write(cut, latents(0, 2, 4, 6, 10), encoder_hidden_states=latents(1, 2, 3, TINY_UNET["cross_attention_dim"]))
    sum(hidden.square().sum() for hidden in bank.hidden.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert all(parameter.grad is not None for parameter in cut.parameters())


def test_cut_reference_unet_lacks_exactly_the_published_tail() -> None:
    with torch.device("meta"):
        whole = UNet2DConditionModel(**picture_config(SD15_UNET))
        cut = ReferenceUNet(**picture_config(SD15_UNET), cut=True)
    missing = set(whole.state_dict()) - set(cut.state_dict())
    assert missing == {key for key in whole.state_dict() if re.fullmatch(CUT_TAIL, key)}
    assert len(missing) == 24
    assert sum(parameter.numel() for parameter in cut.parameters()) == 857_066_560


def test_cut_is_kept_in_the_configuration(tmp_path: Path) -> None:
    _, cut = pair(TINY_UNET)
    cut.save_pretrained(tmp_path)
    again = ReferenceUNet.from_pretrained(tmp_path)
    assert again.config["cut"] is True
    assert list(again.state_dict()) == list(cut.state_dict())


def test_cut_needs_attention_in_the_up_blocks() -> None:
    with pytest.raises(ValueError, match="cut=True needs a self-attention in the up blocks"):
        ReferenceUNet(**TINY_UNET | {"up_block_types": ("UpBlock2D", "UpBlock2D")}, cut=True)
