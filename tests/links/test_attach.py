"""What `attach`, `write` and `reading` refuse, and what they say then; what they do is in the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor2_0

from models import arguments, model
from referencenet import AdaIN, Concat, ReferenceBank, attach, write
from tiny import latents
from tolerances import ROUNDING, relative_error
from traces import traces


class SpecialProcessor(AttnProcessor2_0):
    """Somebody's own attention."""


@pytest.mark.parametrize(
    ("links", "error", "message"),
    [
        ([], ValueError, "no link"),
        ([Concat(), Concat(weight=0.5)], ValueError, "two links of one kind"),
        ([Concat(weight=1.5)], ValueError, r"weight .*1\.5.* \[0, 1\]"),
        ([AdaIN(weight=-0.1)], ValueError, r"weight .*-0\.1.* \[0, 1\]"),
        ([Concat(weight=float("nan"))], ValueError, "weight"),
        ([Concat(weight=0.0)], ValueError, "no layer"),
        ([AdaIN(weight=0.0)], ValueError, "no layer"),
        (["attention"], TypeError, "'attention' is no link"),
        ([Concat], TypeError, "is no link"),
    ],
)
def test_wrong_links_teach_before_anything_is_touched(links: Any, error: type[Exception], message: str):
    unet = model("sd1")
    before = traces(unet)
    with pytest.raises(error, match=message), attach(unet, links):
        pass
    assert traces(unet) == before


@pytest.mark.parametrize("wrong", [torch.nn.Linear(2, 2), AutoencoderKL(norm_num_groups=2, block_out_channels=(4,))])
@pytest.mark.parametrize("links", [[Concat()], [AdaIN()]], ids=["attention", "adain"])
def test_a_model_that_is_no_unet_teaches(wrong: torch.nn.Module, links: Any):
    with pytest.raises((TypeError, ValueError), match=r"UNet|unet"), attach(wrong, links):
        pass


def test_something_that_is_no_model_teaches():
    with pytest.raises(TypeError, match="UNet"), attach("stable-diffusion"):  # pyright: ignore[reportArgumentType]
        pass


def test_attention_that_a_link_would_replace_wrongly_is_refused():
    unet = model("sd1")
    site = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    site.set_processor(SpecialProcessor())
    before = traces(unet)
    with pytest.raises(TypeError, match="mid_block.*SpecialProcessor"), attach(unet):
        pass
    assert traces(unet) == before
    with attach(unet, [AdaIN()]):  # which replaces no attention
        pass


@torch.no_grad()
def test_rows_that_cannot_be_spread_over_the_bank_are_refused():
    unet = model("sd1")
    with attach(unet) as link:
        bank = link.write(**arguments("sd1", 2))
        for weights in ([1.0] * 3, []):
            with pytest.raises(ValueError, match=f"{len(weights)} reading rows"), link.reading(bank, weights=weights):
                pass
        with pytest.raises(ValueError, match=r"a row's weight is -0\.5"), link.reading(bank, weights=[1.0, -0.5]):
            pass
        with pytest.raises(ValueError, match="at least one bank"), link.reading([]):
            pass
        with pytest.raises(ValueError, match="rows"), link.reading([bank, link.write(**arguments("sd1", 1))]):
            pass
        with pytest.raises((KeyError, ValueError)), link.reading(ReferenceBank()):
            pass


@torch.no_grad()
def test_a_bank_of_another_width_teaches():
    narrow, wide = model("sd1"), model("xl")
    bank = write(wide, latents(1), **{k: v for k, v in arguments("xl", 1).items() if k not in ("sample", "timestep")})
    with attach(narrow) as link, pytest.raises(KeyError, match="missing"), link.reading(bank):
        pass


@pytest.mark.parametrize("timestep", [0, 10, torch.tensor(10)])
@torch.no_grad()
def test_a_writer_of_its_own_equals_the_same_unet_as_writer(timestep: Any):
    writer, reader = model("sd1"), model("sd1")
    given = arguments("sd1", 2)
    given["timestep"] = timestep
    context = given["encoder_hidden_states"]
    read = arguments("sd1", 2, 10)
    before = traces(writer)
    hidden = write(writer, given["sample"], timestep=timestep, encoder_hidden_states=context)
    assert traces(writer) == before
    with attach(reader) as link:
        projected = link.write(**given)
        results = []
        for bank in (hidden, projected):
            with link.reading(bank):
                results.append(reader(**read).sample)
    assert relative_error(results[0], results[1]) < ROUNDING


@torch.no_grad()
def test_several_banks_are_read_together_in_any_order():
    unet = model("sd1")
    read = arguments("sd1", 2, 10)
    with attach(unet, [Concat(), AdaIN()]) as link:
        banks = [link.write(**arguments("sd1", 2, seed, size=size)) for seed, size in ((20, (8, 8)), (30, (4, 12)))]
        results = []
        for order in (banks, banks[::-1]):
            with link.reading(order):
                results.append(unet(**read).sample)
    assert relative_error(results[0], results[1]) < ROUNDING


@torch.no_grad()
def test_reading_inside_reading_replaces_and_comes_back():
    unet = model("sd1")
    read = arguments("sd1", 1, 10)
    with attach(unet) as link:
        outer, inner = (link.write(**arguments("sd1", 1, seed)) for seed in (20, 30))
        with link.reading(outer):
            first = unet(**read).sample
            with link.reading(inner):
                assert not torch.equal(unet(**read).sample, first)
            assert torch.equal(unet(**read).sample, first)
            again = link.write(**arguments("sd1", 1, 20))  # writing while reading does not read
            assert torch.equal(unet(**read).sample, first)
        name = link.sites[-1].name
        assert all(map(torch.equal, again.projected[name], outer.projected[name]))
