"""What every link owes the house. A new link joins by a row in `ROWS`; nothing else here names one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from accelerate.hooks import remove_hook_from_submodules
from diffusers.models.attention import BasicTransformerBlock
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

import models
from contract.scaled_concat import ScaledConcat
from models import MODELS, Pass, arguments, cast
from plain import (
    PlainLinks,
    PlainReference,
    adain_names,
    added,
    attention_names,
    concatenated,
    plain_reading,
    plain_writing,
)
from referencenet import AdaIN, Added, Concat, ReferenceBank, attach
from referencenet.links import AdditiveAttention, Kind, Link, Second, is_linked
from tiny import fill
from tolerances import BFLOAT16, ROUNDING, relative_error
from traces import traces


def with_second_layers(unet: Any) -> Any:
    """A UNet with second self-attentions in its middle and up blocks."""
    for stage in (unet.mid_block, unet.up_blocks):
        for name, block in list(stage.named_modules()):
            if isinstance(block, BasicTransformerBlock) and "motion_modules" not in name:
                block.attn1 = AdditiveAttention.like(block.attn1)
    return fill(unet, 70, only="attn1")


def second_names(unet: Any) -> list[str]:
    return [f"{name}.reference" for name in attention_names(unet) if not name.startswith("down_blocks")]


def no_names(_unet: Any) -> list[str]:
    return []


@dataclass(frozen=True, kw_only=True)
class Row:
    """Links, and what they should do, said plainly.

    Attributes:
        links: What is attached together.
        attention: Names of the attentions that read.
        adain: Names of the blocks whose output is renormalised.
        rule: How the attentions read.
        prepare: What becomes of a UNet before it is linked.
    """

    links: list[Kind]
    attention: Callable[[Any], list[str]] = no_names
    adain: Callable[[Any], list[str]] = no_names
    rule: Callable[..., Tensor] = concatenated
    prepare: Callable[[Any], Any] = lambda unet: unet

    def model(self, name: str) -> Any:
        """A tiny UNet for these links."""
        with torch.random.fork_rng(devices=[]):
            return self.prepare(models.model(name))

    def sites(self, unet: Any, *, guided: bool) -> PlainLinks:
        """What the plain computation needs to know."""
        return PlainLinks(self.attention(unet), self.adain(unet), guided=guided, rule=self.rule)


ROWS: dict[str, Row] = {
    "concat": Row(links=[Concat()], attention=attention_names),
    "adain": Row(links=[AdaIN()], adain=adain_names),
    "both": Row(links=[Concat(), AdaIN()], attention=attention_names, adain=adain_names),
    "second": Row(links=[Second()], attention=second_names, prepare=with_second_layers),
    "added": Row(links=[Added()], attention=attention_names, rule=added),
    "scaled_concat": Row(
        links=[ScaledConcat(scale=0.5)],
        attention=attention_names,
        rule=lambda attn, own, references, bias: concatenated(attn, own, 0.5 * references, bias),
    ),
}
PARTS: dict[str, Row] = {
    "concat_0.5": Row(links=[Concat(weight=0.5)], attention=partial(attention_names, weight=0.5)),
    "adain_0.5": Row(links=[AdaIN(weight=0.5)], adain=partial(adain_names, weight=0.5)),
}
OTHER_MODELS = [(row, name) for row in ("concat", "adain", "added") for name in ("xl", "motion")]
each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
on_models_if_slow = pytest.mark.parametrize(
    ("row", "name"),
    [
        *(pytest.param(ROWS[row], "sd1", id=f"{row}-sd1") for row in ROWS),
        *(pytest.param(ROWS[row], name, id=f"{row}-{name}", marks=pytest.mark.slow) for row, name in OTHER_MODELS),
    ],
)
on_models = pytest.mark.parametrize(
    ("row", "name"),
    [pytest.param(ROWS[row], name, id=f"{row}-{name}") for row, name in [*((r, "sd1") for r in ROWS), *OTHER_MODELS]],
)


def run(unet: Any, given: Pass) -> Tensor:
    return unet(**given, return_dict=False)[0]


def write_and_read(
    link: Link, written: dict[str, Any], read: dict[str, Any], weights: Sequence[float] | None = None
) -> Tensor:
    bank = link.write(**written)
    with link.reading(bank, weights=weights):
        return run(link.unet, read)


def plainly(unet: Any, row: Row, written: dict[str, Any], read: dict[str, Any], *, guided: bool = False) -> Tensor:
    """The plain computation; guided: the first half reads half, as at style fidelity 0.5."""
    sites = row.sites(unet, guided=guided)
    with plain_writing(unet, sites, PlainReference(torch.empty(0))) as bank:
        run(unet, written)
    with plain_reading(unet, sites, [bank]):
        return run(unet, read)


@pytest.mark.parametrize("row", (ROWS | PARTS).values(), ids=ROWS | PARTS)
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_reads_what_the_specification_says(name: str, row: Row):
    unet = row.model(name)
    written, read = arguments(name, 2, 0), arguments(name, 2, 10)
    with attach(unet, row.links) as link:
        ours = write_and_read(link, written, read)
    assert relative_error(ours, plainly(unet, row, written, read)) < ROUNDING


@on_models
@torch.no_grad()
def test_detached_is_as_if_never_attached(name: str, row: Row):
    unet = row.model(name)
    read = arguments(name, 2, 10)
    plain, before = run(unet, read), traces(unet)
    with attach(unet, row.links) as link:
        bank = link.write(**arguments(name, 2, 0))
        assert torch.equal(run(unet, read), plain), "attached, but nothing to read"
        with link.reading(bank):
            assert relative_error(run(unet, read), plain) > 1e-3
        assert torch.equal(run(unet, read), plain), "attached, and reading is over"
        assert list(unet.state_dict()) == before["state_dict"]
    assert traces(unet) == before
    assert torch.equal(run(unet, read), plain)


@each_row
@torch.no_grad()
def test_an_exception_while_reading_ends_the_reading(row: Row):
    unet = row.model("sd1")
    read = arguments("sd1", 2, 10)
    plain, before = run(unet, read), traces(unet)
    with attach(unet, row.links) as link:
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


@each_row
@torch.no_grad()
def test_attaching_twice_raises_and_the_first_stays(row: Row):
    unet = row.model("sd1")
    read = arguments("sd1", 2, 10)
    before = traces(unet)
    with attach(unet, row.links) as link:
        bank = link.write(**arguments("sd1", 2, 0))
        with link.reading(bank):
            first = run(unet, read)
        for others in ([Concat()], [AdaIN()], row.links):
            with pytest.raises(ValueError, match="linked already"), attach(unet, others):
                pass
        with link.reading(bank):
            assert torch.equal(run(unet, read), first)
    assert traces(unet) == before
    with attach(unet, row.links):
        pass


@each_row
@torch.no_grad()
def test_two_links_on_two_models_never_meet(row: Row):
    unets = [row.model("sd1"), fill(row.model("sd1"), 50)]
    written = [arguments("sd1", 2, 0), arguments("sd1", 1, 20)]
    read = [arguments("sd1", 2, 10), arguments("sd1", 3, 30, size=(6, 10))]
    alone = []
    for unet, w, r in zip(unets, written, read, strict=True):
        with attach(unet, row.links) as link:
            alone.append(write_and_read(link, w, r, None if len(alone) == 0 else [1.0] * 3))
    with ExitStack() as stack:
        first, second = (stack.enter_context(attach(unet, row.links)) for unet in unets)
        banks = [first.write(**written[0]), second.write(**written[1])]
        with first.reading(banks[0]), second.reading(banks[1], weights=[1.0] * 3):
            assert torch.equal(run(unets[1], read[1]), alone[1])
            assert torch.equal(run(unets[0], read[0]), alone[0])


@on_models
@torch.no_grad()
def test_a_saved_bank_is_the_bank(name: str, row: Row, tmp_path: Path):
    unet = row.model(name)
    read = arguments(name, 2, 10)
    with attach(unet, row.links) as link:
        bank = link.write(**arguments(name, 2, 0))
        with link.reading(bank):
            expected = run(unet, read)
    bank.save(tmp_path / "hero.safetensors")
    loaded = ReferenceBank.load(tmp_path / "hero.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["hero.safetensors"]
    with attach(unet, row.links) as link, link.reading(loaded):
        assert torch.equal(run(unet, read), expected)


@each_row
@torch.no_grad()
def test_a_broken_bank_file_teaches(row: Row, tmp_path: Path):
    with attach(row.model("sd1"), row.links) as link:
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
    with pytest.raises(ValueError, match="not a reference bank"):
        ReferenceBank.load(path)


@each_row
@torch.no_grad()
def test_a_bank_without_all_sites_is_refused_by_name(row: Row):
    with attach(row.model("sd1"), row.links) as link:
        for site in link.sites:
            bank = link.write(**arguments("sd1", 1, 0))
            for part in (bank.projected, bank.statistics):
                part.pop(site.name, None)
            with pytest.raises(KeyError, match=site.name.replace(".", r"\.")), link.reading(bank):
                pass


@each_row
@pytest.mark.parametrize(("name", "rows"), [("sd1", 1), ("motion", 2)])
def test_gradient_checkpointing_gives_the_same_gradients(name: str, row: Row, rows: int):
    """Also of the write pass: with as many rows as the read pass nothing but a flag tells the two apart."""
    gradients = []
    for checkpointing in (False, True):
        unet = row.model(name).requires_grad_(True).train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        with attach(unet, row.links) as link:
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


@each_row
def test_gradients_flow_through_the_bank_to_the_writer(row: Row):
    writer, reader = row.model("sd1").requires_grad_(True), row.model("sd1")
    with attach(writer, row.links) as link:
        bank = link.write(**arguments("sd1", 2, 0), projected=False)
    with attach(reader, row.links) as link, link.reading(bank):
        run(reader, arguments("sd1", 2, 10)).square().mean().backward()
    assert writer.conv_in.weight.grad is not None
    assert writer.conv_in.weight.grad.norm() > 0
    assert all(parameter.grad is None for parameter in reader.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "name"),
    [pytest.param(row, "sd1", id=f"{key}-sd1") for key, row in ROWS.items()]
    + [pytest.param(ROWS["both"], name, id=f"both-{name}") for name in ("sd2", "xl", "motion")],
)
@torch.no_grad()
def test_the_read_pass_compiles_whole_and_only_once(name: str, row: Row):
    unet = row.model(name)
    torch._dynamo.reset()
    with attach(unet, row.links) as link:
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


@on_models
@torch.no_grad()
def test_bfloat16_stays_bfloat16_and_near(name: str, row: Row):
    unet = row.model(name)
    written, read = arguments(name, 2, 0), arguments(name, 2, 10)
    with attach(unet, row.links) as link:
        expected = write_and_read(link, written, read)
        unet.to(torch.bfloat16)
        half = write_and_read(link, cast(written, torch.bfloat16), cast(read, torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert relative_error(half, expected) < BFLOAT16


@on_models_if_slow
@torch.no_grad()
def test_works_under_accelerates_offloading(name: str, row: Row):
    unet = row.model(name)
    written, read = arguments(name, 2, 0), arguments(name, 2, 10)
    with attach(unet, row.links) as link:
        expected = write_and_read(link, written, read)
    accelerate.cpu_offload(unet, execution_device=torch.device("cpu"))
    assert next(unet.parameters()).device.type == "meta"
    plain, before = run(unet, read), traces(unet)
    with attach(unet, row.links) as link:
        ours = write_and_read(link, written, read)
        again = write_and_read(link, written, read)
    assert torch.equal(ours, expected)
    assert torch.equal(again, expected)
    assert traces(unet) == before
    assert torch.equal(run(unet, read), plain)
    assert {parameter.device.type for parameter in unet.parameters()} == {"meta"}, "weights were left behind"
    remove_hook_from_submodules(unet)


@each_row
@pytest.mark.parametrize("level", ["block_level", "leaf_level"])
@torch.no_grad()
def test_layers_run_only_while_their_group_is_there(row: Row, level: str, tmp_path: Path):
    """A group that rests on disk has no weights: whoever runs its layers then gets other numbers."""
    unet = row.model("sd1")
    written, read = arguments("sd1", 2, 0), arguments("sd1", 2, 10)
    with attach(unet, row.links) as link:
        expected = write_and_read(link, written, read)
    blocks = {"num_blocks_per_group": 1} if level == "block_level" else {}
    cpu = torch.device("cpu")
    unet.enable_group_offload(cpu, cpu, offload_type=level, offload_to_disk_path=str(tmp_path), **blocks)
    with attach(unet, row.links) as link:
        bank = link.write(**written, projected=False)
        for _ in range(2):
            rest(unet)
            with link.reading(bank):
                assert relative_error(run(unet, read), expected) < ROUNDING
                assert relative_error(run(unet, read), expected) < ROUNDING
        with link.reading(bank, once=True):
            assert relative_error(run(unet, read), expected) < ROUNDING
    assert not bank.sites(), "read once, the bank is empty"


def rest(unet: Any) -> None:
    """Fill every weight that rests on disk with noughts."""
    for module in unet.modules():
        hook = module._diffusers_hook.get_hook("group_offloading") if hasattr(module, "_diffusers_hook") else None
        if hook is not None and hook.group._is_offloaded_to_disk:
            hook.group.offload_()
            for tensor in hook.group.key_to_tensor.values():
                tensor.data.zero_()


@each_row
@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float8_e4m3fn], ids=["bfloat16", "float8"])
@pytest.mark.parametrize("projected", [True, False], ids=["projected", "inputs"])
@torch.no_grad()
def test_layers_take_the_type_they_compute_in_not_that_of_storage(row: Row, storage: torch.dtype, projected: bool):
    unet = row.model("sd1")
    unet.enable_layerwise_casting(storage_dtype=storage, compute_dtype=torch.float32)
    written, read = arguments("sd1", 2, 0), arguments("sd1", 2, 10)
    with attach(unet, row.links) as link:
        bank = link.write(**written, projected=projected)
        with link.reading(bank, weights=[0.5, 1.0]):
            ours = run(unet, read)
    assert relative_error(ours, plainly(unet, row, written, read, guided=True)) < ROUNDING


def slice_attention(unet: Any) -> None:
    unet.set_attention_slice(1)


def fuse(unet: Any) -> None:
    unet.fuse_qkv_projections()


@each_row
@pytest.mark.parametrize("replace", [slice_attention, fuse])
@torch.no_grad()
def test_processors_may_be_replaced_while_linked(row: Row, replace: Callable[[Any], None]):
    """Attention slicing, also before and without reading; fused projections, undone after the block."""
    unet = row.model("sd1")
    written, read = arguments("sd1", 2, 0), arguments("sd1", 2, 10)
    plain, before = run(unet, read), unet.attn_processors
    with attach(unet, row.links) as link:
        expected = write_and_read(link, written, read)
        replace(unet)
        assert relative_error(run(unet, read), plain) < ROUNDING
        assert relative_error(write_and_read(link, written, read), expected) < ROUNDING
        assert relative_error(run(unet, read), plain) < ROUNDING
    with attach(unet, row.links) as link:
        assert relative_error(run(unet, read), plain) < ROUNDING
        assert relative_error(write_and_read(link, written, read), expected) < ROUNDING
    if replace is fuse:
        unet.unfuse_qkv_projections()
        assert unet.attn_processors == before, "the very processors of before"
    assert relative_error(run(unet, read), plain) < ROUNDING


@each_row
@torch.no_grad()
def test_lora_layers_are_written_and_read_with(row: Row):
    unet = row.model("sd1")
    written, read = arguments("sd1", 2, 0), arguments("sd1", 2, 10)
    with attach(unet, row.links) as link:
        without = write_and_read(link, written, read)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    with torch.random.fork_rng(devices=[]):
        unet.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    fill(unet, 60, only="lora_")
    scale = {"cross_attention_kwargs": {"scale": 0.5}}
    for changes in ({}, scale):
        with attach(unet, row.links) as link:
            ours = write_and_read(link, written | changes, read | changes)
        assert (
            relative_error(ours, plainly(unet, row, written | changes, read | changes)) < 1.5 * ROUNDING
        )  # AdaIN divides by deviations
        assert relative_error(ours, without) > 1e-3


@on_models
@pytest.mark.parametrize(("rows", "size", "tokens"), [(1, (8, 8), 2), (3, (4, 10), 3), (5, (6, 2), 5)])
@torch.no_grad()
def test_any_batch_size_and_context(name: str, row: Row, rows: int, size: tuple[int, int], tokens: int):
    unet = row.model(name)
    written = arguments(name, rows, 0, size=(size[1], size[0]), tokens=tokens)
    read = arguments(name, rows, 10, size=size, tokens=tokens + 1)
    with attach(unet, row.links) as link:
        ours = write_and_read(link, written, read)
    assert relative_error(ours, plainly(unet, row, written, read)) < ROUNDING


@on_models
@torch.no_grad()
def test_row_weights_blend_and_rows_spread_evenly_over_the_bank(name: str, row: Row):
    unet = row.model(name)
    written, read = arguments(name, 2, 0), arguments(name, 6, 10)
    with attach(unet, row.links) as link:
        ours = write_and_read(link, written, read, [0.5] * 3 + [1.0] * 3)
    assert relative_error(ours, plainly(unet, row, written, read, guided=True)) < ROUNDING


@on_models
@torch.no_grad()
def test_rows_of_weight_zero_are_plain(name: str, row: Row):
    unet = row.model(name)
    read = arguments(name, 3, 10)
    plain = run(unet, read)
    with attach(unet, row.links) as link:
        bank = link.write(**arguments(name, 1, 0))
        with link.reading(bank, weights=[0.0, 0.0, 0.0]):
            assert torch.equal(run(unet, read), plain)
        with link.reading(bank, weights=[0.0, 1.0, 0.0]):
            mixed = run(unet, read)
    assert relative_error(mixed[[0, 2]], plain[[0, 2]]) < ROUNDING
    assert relative_error(mixed[1], plain[1]) > 1e-3


@each_row
@torch.no_grad()
def test_all_frames_of_a_film_read_the_reference(row: Row):
    unet = row.model("motion")
    written, read = arguments("motion", 2, 0), arguments("motion", 2, 10, frames=5)
    with attach(unet, row.links) as link:
        ours = write_and_read(link, written, read)
        banks = link.write(**written)
    assert relative_error(ours, plainly(unet, row, written, read)) < ROUNDING
    assert banks.rows == 2


@each_row
@torch.no_grad()
def test_a_copy_of_a_linked_model_is_a_model_of_its_own(row: Row):
    unet = row.model("sd1")
    read = arguments("sd1", 2, 10)
    plain = run(unet, read)
    with attach(unet, row.links) as link:
        twin = copy.deepcopy(unet)
        assert not is_linked(twin)
        bank = link.write(**arguments("sd1", 2, 0))
        with link.reading(bank):
            assert torch.equal(run(twin, read), plain)


@each_row
@torch.no_grad()
def test_writing_counts_every_site_once_and_ends_at_the_last(row: Row):
    unet = row.model("sd1")
    ends: list[int] = []
    with attach(unet, row.links) as link, unet.conv_out.register_forward_hook(lambda *_: ends.append(1)):
        bank = link.write(**arguments("sd1", 2, 0))
        assert not ends
        assert {*bank.projected, *bank.statistics} == {site.name for site in link.sites}
        link.write(**arguments("sd1", 2, 0), stop=False)
        assert ends == [1]
