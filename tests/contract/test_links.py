"""What every link owes the house. A new link joins by a row in `LINKS`; nothing else here names one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from accelerate.hooks import remove_hook_from_submodules
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import MODELS, Pass, arguments, cast, model
from plain import PlainLinks, PlainReference, adain_names, attention_names, plain_reading, plain_writing
from referencenet import AdaIN, Concat, ReferenceBank, attach
from referencenet.links import Link
from tiny import fill
from tolerances import BFLOAT16, ROUNDING, relative_error
from traces import traces

LINKS: dict[str, list[Any]] = {
    "attention": [Concat()],
    "adain": [AdaIN()],
    "both": [Concat(), AdaIN()],
    "attention_0.5": [Concat(weight=0.5)],
    "adain_0.5": [AdaIN(weight=0.5)],
}
every_link = pytest.mark.parametrize("links", LINKS.values(), ids=LINKS)
main_links = pytest.mark.parametrize("links", [LINKS["attention"], LINKS["adain"], LINKS["both"]], ids=list(LINKS)[:3])
every_model = pytest.mark.parametrize("name", ["sd1", "xl", "motion"])


def run(unet: Any, given: Pass) -> Tensor:
    return unet(**given, return_dict=False)[0]


def write_and_read(
    link: Link, written: dict[str, Any], read: dict[str, Any], weights: Sequence[float] | None = None
) -> Tensor:
    bank = link.write(**written)
    with link.reading(bank, weights=weights):
        return run(link.unet, read)


def plainly(
    unet: Any, links: list[Any], written: dict[str, Any], read: dict[str, Any], *, guided: bool = False
) -> Tensor:
    """The plain computation; guided: the first half reads half, as at style fidelity 0.5."""
    attention = [attention_names(unet, link.weight) for link in links if isinstance(link, Concat)]
    adain = [adain_names(unet, link.weight) for link in links if isinstance(link, AdaIN)]
    sites = PlainLinks(*(found[0] if found else [] for found in (attention, adain)), guided=guided)
    with plain_writing(unet, sites, PlainReference(torch.empty(0))) as bank:
        run(unet, written)
    with plain_reading(unet, sites, [bank]):
        return run(unet, read)


@every_link
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_reads_what_the_specification_says(name: str, links: list[Any]):
    unet = model(name)
    written, read = arguments(name, 2, 0), arguments(name, 2, 10)
    with attach(unet, links) as link:
        ours = write_and_read(link, written, read)
    assert relative_error(ours, plainly(unet, links, written, read)) < ROUNDING


@main_links
@every_model
@torch.no_grad()
def test_detached_is_as_if_never_attached(name: str, links: list[Any]):
    unet = model(name)
    read = arguments(name, 2, 10)
    plain, before = run(unet, read), traces(unet)
    with attach(unet, links) as link:
        bank = link.write(**arguments(name, 2, 0))
        assert torch.equal(run(unet, read), plain), "attached, but nothing to read"
        with link.reading(bank):
            assert relative_error(run(unet, read), plain) > 1e-3
        assert torch.equal(run(unet, read), plain), "attached, and reading is over"
        assert list(unet.state_dict()) == before["state_dict"]
    assert traces(unet) == before
    assert torch.equal(run(unet, read), plain)


@main_links
@torch.no_grad()
def test_an_exception_while_reading_ends_the_reading(links: list[Any]):
    unet = model("sd1")
    read = arguments("sd1", 2, 10)
    plain, before = run(unet, read), traces(unet)
    with attach(unet, links) as link:
        bank = link.write(**arguments("sd1", 2, 0))
        for error in (RuntimeError, KeyboardInterrupt):
            with pytest.raises(error), link.reading(bank):
                raise error
            assert torch.equal(run(unet, read), plain)
        with pytest.raises(RuntimeError):  # of torch: the context has too few channels
            link.write(**(read | {"encoder_hidden_states": torch.zeros(2, 5, 3)}))
        assert torch.equal(run(unet, read), plain)
    assert traces(unet) == before
    assert torch.equal(run(unet, read), plain)


@main_links
@torch.no_grad()
def test_attaching_twice_raises_and_the_first_stays(links: list[Any]):
    unet = model("sd1")
    read = arguments("sd1", 2, 10)
    before = traces(unet)
    with attach(unet, links) as link:
        bank = link.write(**arguments("sd1", 2, 0))
        with link.reading(bank):
            first = run(unet, read)
        for others in LINKS.values():
            with pytest.raises(ValueError, match="linked already"), attach(unet, others):
                pass
        with link.reading(bank):
            assert torch.equal(run(unet, read), first)
    assert traces(unet) == before
    with attach(unet, links):
        pass


@main_links
@torch.no_grad()
def test_two_links_on_two_models_never_meet(links: list[Any]):
    unets = [model("sd1"), fill(model("sd1"), 50)]
    written = [arguments("sd1", 2, 0), arguments("sd1", 1, 20)]
    read = [arguments("sd1", 2, 10), arguments("sd1", 3, 30, size=(6, 10))]
    alone = []
    for unet, w, r in zip(unets, written, read, strict=True):
        with attach(unet, links) as link:
            alone.append(write_and_read(link, w, r, None if len(alone) == 0 else [1.0] * 3))
    with ExitStack() as stack:
        first, second = (stack.enter_context(attach(unet, links)) for unet in unets)
        banks = [first.write(**written[0]), second.write(**written[1])]
        with first.reading(banks[0]), second.reading(banks[1], weights=[1.0] * 3):
            assert torch.equal(run(unets[1], read[1]), alone[1])
            assert torch.equal(run(unets[0], read[0]), alone[0])


@main_links
@every_model
@torch.no_grad()
def test_a_saved_bank_is_the_bank(name: str, links: list[Any], tmp_path: Path):
    unet = model(name)
    read = arguments(name, 2, 10)
    with attach(unet, links) as link:
        bank = link.write(**arguments(name, 2, 0))
        with link.reading(bank):
            expected = run(unet, read)
    bank.save(tmp_path / "hero.safetensors")
    loaded = ReferenceBank.load(tmp_path / "hero.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["hero.safetensors"]
    with attach(unet, links) as link, link.reading(loaded):
        assert torch.equal(run(unet, read), expected)


@main_links
@torch.no_grad()
def test_a_broken_bank_file_teaches(links: list[Any], tmp_path: Path):
    with attach(model("sd1"), links) as link:
        bank = link.write(**arguments("sd1", 1, 0))
    path = tmp_path / "hero.safetensors"
    bank.save(path)
    whole = path.read_bytes()
    with pytest.raises(FileNotFoundError, match=r"hero\.bin"):
        ReferenceBank.load(tmp_path / "hero.bin")
    for broken in (b"", b"not a bank at all", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"hero\.safetensors.*"):
            ReferenceBank.load(path)
    path.write_bytes(whole)
    tensors = load_file(path)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="no reference bank"):
        ReferenceBank.load(path)


@main_links
@torch.no_grad()
def test_a_bank_without_all_sites_is_refused_by_name(links: list[Any]):
    with attach(model("sd1"), links) as link:
        for site in link.sites:
            bank = link.write(**arguments("sd1", 1, 0))
            for part in (bank.projected, bank.statistics):
                part.pop(site.name, None)
            with pytest.raises(KeyError, match=site.name.replace(".", r"\.")), link.reading(bank):
                pass


@main_links
@pytest.mark.parametrize("name", ["sd1", "motion"])
@pytest.mark.parametrize("rows", [1, 2])
def test_gradient_checkpointing_gives_the_same_gradients(name: str, links: list[Any], rows: int):
    """Also of the write pass: with as many rows as the read pass nothing but a flag tells the two apart."""
    gradients = []
    for checkpointing in (False, True):
        unet = model(name).requires_grad_(True).train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        with attach(unet, links) as link:
            bank = link.write(**arguments(name, rows, 0), projected=rows == 1)
            with link.reading(bank, weights=[1.0, 0.5]):
                run(unet, arguments(name, 2, 10, frames=2)).square().mean().backward()
        found = {key: parameter.grad for key, parameter in unet.named_parameters() if parameter.grad is not None}
        gradients.append(found)
        assert unet.is_gradient_checkpointing == checkpointing
    assert gradients[0].keys() == gradients[1].keys()
    total = [torch.cat([tensor.flatten() for tensor in found.values()]) for found in gradients]
    assert total[0].norm() > 0
    assert relative_error(total[1], total[0]) < ROUNDING


@main_links
def test_gradients_flow_through_the_bank_to_the_writer(links: list[Any]):
    writer, reader = model("sd1").requires_grad_(True), model("sd1")
    with attach(writer, links) as link:
        bank = link.write(**arguments("sd1", 2, 0), projected=False)
    with attach(reader, links) as link, link.reading(bank):
        run(reader, arguments("sd1", 2, 10)).square().mean().backward()
    assert writer.conv_in.weight.grad is not None
    assert writer.conv_in.weight.grad.norm() > 0
    assert all(parameter.grad is None for parameter in reader.parameters())


@pytest.mark.parametrize(
    ("name", "links"),
    [
        ("sd1", LINKS["both"]),
        pytest.param("sd1", LINKS["attention"], marks=pytest.mark.slow),
        pytest.param("sd1", LINKS["adain"], marks=pytest.mark.slow),
        pytest.param("sd2", LINKS["both"], marks=pytest.mark.slow),
        pytest.param("xl", LINKS["both"], marks=pytest.mark.slow),
        pytest.param("motion", LINKS["both"], marks=pytest.mark.slow),
    ],
    ids=["sd1-both", "sd1-attention", "sd1-adain", "sd2-both", "xl-both", "motion-both"],
)
@torch.no_grad()
def test_the_read_pass_compiles_whole_and_only_once(name: str, links: list[Any]):
    unet = model(name)
    torch._dynamo.reset()
    with attach(unet, links) as link:
        compiled = torch.compile(unet, backend="eager", fullgraph=True)
        bank = link.write(**arguments(name, 1, 0))
        with link.reading(bank, weights=[0.5, 1.0]):
            given = arguments(name, 2, 10, timestep=torch.tensor(900))
            assert relative_error(run(compiled, given), run(unet, given)) < ROUNDING
        with torch._dynamo.config.patch(error_on_recompile=True):
            for step in range(1, 4):
                bank = link.write(**arguments(name, 1, 100 + step, timestep=torch.tensor(900 - step)))
                with link.reading(bank, weights=[0.5, 1.0]):
                    given = arguments(name, 2, 10 + step, timestep=torch.tensor(900 - step))
                    ours = run(compiled, given)
                    expected = run(unet, given)
                assert relative_error(ours, expected) < ROUNDING
    torch._dynamo.reset()


@main_links
@every_model
@torch.no_grad()
def test_bfloat16_stays_bfloat16_and_near(name: str, links: list[Any]):
    unet = model(name)
    written, read = arguments(name, 2, 0), arguments(name, 2, 10)
    with attach(unet, links) as link:
        expected = write_and_read(link, written, read)
        unet.to(torch.bfloat16)
        half = write_and_read(link, cast(written, torch.bfloat16), cast(read, torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert relative_error(half, expected) < BFLOAT16


@main_links
@every_model
@torch.no_grad()
def test_works_under_accelerates_offloading(name: str, links: list[Any]):
    unet = model(name)
    written, read = arguments(name, 2, 0), arguments(name, 2, 10)
    with attach(unet, links) as link:
        expected = write_and_read(link, written, read)
    accelerate.cpu_offload(unet, execution_device=torch.device("cpu"))
    assert next(unet.parameters()).device.type == "meta"
    plain, before = run(unet, read), traces(unet)
    with attach(unet, links) as link:
        ours = write_and_read(link, written, read)
        again = write_and_read(link, written, read)
    assert torch.equal(ours, expected)
    assert torch.equal(again, expected)
    assert traces(unet) == before
    assert torch.equal(run(unet, read), plain)
    assert {parameter.device.type for parameter in unet.parameters()} == {"meta"}, "weights were left behind"
    remove_hook_from_submodules(unet)


@pytest.mark.parametrize("projected", [True, False])
@torch.no_grad()
def test_works_with_weights_that_are_stored_in_eight_bits(projected: bool):
    unet = model("sd1")
    unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_k.weight.dtype == torch.float8_e4m3fn
    written, read = arguments("sd1", 2, 0), arguments("sd1", 2, 10)
    links = LINKS["both"]
    with attach(unet, links) as link:
        bank = link.write(**written, projected=projected)
        with link.reading(bank):
            ours = run(unet, read)
    assert relative_error(ours, plainly(unet, links, written, read)) < ROUNDING


@main_links
@torch.no_grad()
def test_lora_layers_are_written_and_read_with(links: list[Any]):
    unet = model("sd1")
    written, read = arguments("sd1", 2, 0), arguments("sd1", 2, 10)
    with attach(unet, links) as link:
        without = write_and_read(link, written, read)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    with torch.random.fork_rng(devices=[]):
        unet.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    fill(unet, 60, only="lora_")
    scale = {"cross_attention_kwargs": {"scale": 0.5}}
    for changes in ({}, scale):
        with attach(unet, links) as link:
            ours = write_and_read(link, written | changes, read | changes)
        assert relative_error(ours, plainly(unet, links, written | changes, read | changes)) < ROUNDING
        assert relative_error(ours, without) > 1e-3


@main_links
@every_model
@pytest.mark.parametrize(("rows", "size", "tokens"), [(1, (8, 8), 2), (3, (4, 10), 3), (5, (6, 2), 5)])
@torch.no_grad()
def test_any_batch_size_and_context(name: str, links: list[Any], rows: int, size: tuple[int, int], tokens: int):
    unet = model(name)
    written = arguments(name, rows, 0, size=(size[1], size[0]), tokens=tokens)
    read = arguments(name, rows, 10, size=size, tokens=tokens + 1)
    with attach(unet, links) as link:
        ours = write_and_read(link, written, read)
    assert relative_error(ours, plainly(unet, links, written, read)) < ROUNDING


@main_links
@every_model
@torch.no_grad()
def test_row_weights_blend_and_rows_spread_evenly_over_the_bank(name: str, links: list[Any]):
    unet = model(name)
    written, read = arguments(name, 2, 0), arguments(name, 6, 10)
    with attach(unet, links) as link:
        ours = write_and_read(link, written, read, [0.5] * 3 + [1.0] * 3)
    assert relative_error(ours, plainly(unet, links, written, read, guided=True)) < ROUNDING


@main_links
@every_model
@torch.no_grad()
def test_rows_of_weight_zero_are_plain(name: str, links: list[Any]):
    unet = model(name)
    read = arguments(name, 3, 10)
    plain = run(unet, read)
    with attach(unet, links) as link:
        bank = link.write(**arguments(name, 1, 0))
        with link.reading(bank, weights=[0.0, 0.0, 0.0]):
            assert torch.equal(run(unet, read), plain)
        with link.reading(bank, weights=[0.0, 1.0, 0.0]):
            mixed = run(unet, read)
    assert relative_error(mixed[[0, 2]], plain[[0, 2]]) < ROUNDING
    assert relative_error(mixed[1], plain[1]) > 1e-3


@main_links
@torch.no_grad()
def test_all_frames_of_a_film_read_the_reference(links: list[Any]):
    unet = model("motion")
    written, read = arguments("motion", 2, 0), arguments("motion", 2, 10, frames=5)
    with attach(unet, links) as link:
        ours = write_and_read(link, written, read)
        banks = link.write(**written)
    assert relative_error(ours, plainly(unet, links, written, read)) < ROUNDING
    assert banks.rows == 2


@main_links
@torch.no_grad()
def test_a_copy_of_a_linked_model_is_a_model_of_its_own(links: list[Any]):
    unet = model("sd1")
    read = arguments("sd1", 2, 10)
    plain = run(unet, read)
    with attach(unet, links) as link:
        twin = copy.deepcopy(unet)
        bank = link.write(**arguments("sd1", 2, 0))
        with link.reading(bank):
            assert torch.equal(run(twin, read), plain)


@main_links
@torch.no_grad()
def test_writing_counts_every_site_once_and_ends_at_the_last(links: list[Any]):
    unet = model("sd1")
    ends: list[int] = []
    with attach(unet, links) as link, unet.conv_out.register_forward_hook(lambda *_: ends.append(1)):
        bank = link.write(**arguments("sd1", 2, 0))
        assert not ends
        assert {*bank.projected, *bank.statistics} == {site.name for site in link.sites}
        link.write(**arguments("sd1", 2, 0), stop=False)
        assert ends == [1]
