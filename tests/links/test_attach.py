"""What `attach`, `write` and `reading` refuse, and what they say then; what they do is in the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor2_0

import referencenet
from models import arguments, model
from referencenet import AdaIN, Concat, ReferenceBank, attach, links, write
from referencenet.links import Pyramid, ReadBank, Second, additive, concat, is_linked
from tiny import latents
from tolerances import ROUNDING, relative_error
from traces import traces


class SpecialProcessor(AttnProcessor2_0):
    """Somebody's own attention."""


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "no link"),
        ([Concat(), Concat(weight=0.5)], ValueError, "two links of one kind"),
        ([Concat(weight=1.5)], ValueError, r"weight .*1\.5.* \[0, 1\]"),
        ([AdaIN(weight=-0.1)], ValueError, r"weight .*-0\.1.* \[0, 1\]"),
        ([Concat(weight=float("nan"))], ValueError, "weight"),
        ([Concat(weight=0.0)], ValueError, "no layer"),
        ([AdaIN(weight=0.0)], ValueError, "no layer"),
        (["attention"], TypeError, "'attention' is not a link"),
        ([Concat], TypeError, "is not a link"),
    ],
)
def test_wrong_links_teach_before_anything_is_touched(given: Any, error: type[Exception], message: str):
    unet = model("sd1")
    before = traces(unet)
    with pytest.raises(error, match=message), attach(unet, given):
        pass
    assert traces(unet) == before


@pytest.mark.parametrize("wrong", [torch.nn.Linear(2, 2), AutoencoderKL(norm_num_groups=2, block_out_channels=(4,))])
@pytest.mark.parametrize("given", [[Concat()], [AdaIN()]], ids=["attention", "adain"])
def test_a_model_that_is_no_unet_teaches(wrong: torch.nn.Module, given: Any):
    with pytest.raises((TypeError, ValueError), match=r"UNet|unet"), attach(wrong, given):
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


@torch.no_grad()
def test_whoever_replaces_attention_while_linked_is_named():
    """As SAG, attend-and-excite and zero-shot films do."""
    unet = model("sd1")
    with attach(unet) as link:
        bank = link.write(**arguments("sd1", 1))
        foreign = SpecialProcessor()
        unet.mid_block.attentions[0].transformer_blocks[0].attn1.set_processor(foreign)
        for act in (lambda: link.write(**arguments("sd1", 1)), lambda: link.reading(bank).__enter__()):
            with pytest.raises(TypeError, match=r"mid_block.*SpecialProcessor now; it was replaced inside"):
                act()
    assert unet.mid_block.attentions[0].transformer_blocks[0].attn1.processor is foreign
    unet.mid_block.attentions[0].transformer_blocks[0].attn1.set_processor(AttnProcessor2_0())
    with attach(unet):
        pass


@torch.no_grad()
def test_processors_saved_while_linked_and_put_back_later_are_harmless():
    unet = model("sd1")
    given = arguments("sd1", 2)
    plain = unet(**given).sample
    with attach(unet):
        saved = unet.attn_processors
    unet.set_attn_processor(saved)
    assert not is_linked(unet)
    assert torch.equal(unet(**given).sample, plain)
    with attach(unet) as link:
        bank = link.write(**arguments("sd1", 2, 50))
        with link.reading(bank):
            assert not torch.equal(unet(**given).sample, plain)
    assert {type(processor) for processor in unet.attn_processors.values()} == {AttnProcessor2_0}


@torch.no_grad()
def test_sliced_attention_from_before_serves_steps_that_do_not_read():
    unet = model("sd1")
    given = arguments("sd1", 2)
    unet.set_attention_slice(1)
    plain = unet(**given).sample
    with attach(unet):
        assert torch.equal(unet(**given).sample, plain)


class ToMeBlock(BasicTransformerBlock):
    """Merges four tokens into one for its self-attention, under the name that tomesd gives such blocks."""

    def merge(self) -> None:
        self.attn1.register_forward_pre_hook(lambda _, args: (args[0].unflatten(1, (-1, 4)).mean(2), *args[1:]))
        self.attn1.register_forward_hook(lambda _, __, output: output.repeat_interleave(4, 1))


def merging(*, named: bool) -> Any:
    """A UNet that merges tokens in its first block: 64 become 16, as many as the next level has."""
    unet = model("sd1")
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    ToMeBlock.merge(block)
    if named:
        block.__class__ = ToMeBlock
    return unet


@torch.no_grad()
def test_merged_tokens_are_read_without_masks_and_refuse_those():
    unet = merging(named=True)
    mask = Pyramid.of(torch.ones(8, 8), (8, 8))
    given = arguments("sd1", 2, 10)
    plain = unet(**given).sample
    with attach(unet) as link:
        bank = link.write(**arguments("sd1", 2))
        with link.reading(bank):
            assert relative_error(unet(**given).sample, plain) > 1e-3
        for masks in ({"readable": mask}, {"visible": mask}):
            with pytest.raises(ValueError, match=r"merged inside of down_blocks\.0.*remove_patch"):
                with link.reading(ReadBank(bank=bank, **masks)):
                    pass


@pytest.mark.parametrize("where", ["readable", "visible"])
@torch.no_grad()
def test_a_mask_for_other_counts_of_tokens_says_so(where: str):
    unet = merging(named=False)
    mask = Pyramid.of(torch.ones(6, 6), (6, 6))
    with attach(unet) as link:
        bank = link.write(**arguments("sd1", 2))
        with pytest.raises(ValueError, match=r"site has \d+ tokens.*tomesd"):
            with link.reading(ReadBank(bank=bank, **{where: mask})):
                unet(**arguments("sd1", 2, 10))


@torch.no_grad()
def test_print_says_who_writes_and_reads_and_how():
    unet = model("sd1")
    with attach(unet, [Concat(), AdaIN()]) as link:
        fresh = repr(link).splitlines()
        assert fresh[1].split() == ["site", "width", "tokens", "writer", "reader", "rule"]
        assert all(line.split()[2:4] == ["-", "-"] for line in fresh[2:])
        bank = link.write(**arguments("sd1", 1), projected=False)
        assert "64      input           attn1   attention over [own; reference]" in repr(link)
        assert "-       mean, variance  output  own features with" in repr(link)
        with link.reading([bank, bank]):
            assert "128     input" in repr(link)


def test_old_names_work_with_a_warning():
    for module, old, new in (
        (referencenet, "Attention", Concat),
        (links, "Attention", Concat),
        (concat, "Attention", Concat),
        (links, "Additive", Second),
        (additive, "Additive", Second),
    ):
        with pytest.warns(DeprecationWarning, match=f"{old} is now called {new.__name__}"):
            assert getattr(module, old) is new
    with pytest.raises(AttributeError, match="Attentoin"):
        _ = links.Attentoin
