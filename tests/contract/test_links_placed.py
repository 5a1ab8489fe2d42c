"""What every link owes in a model that trains, compiles, rests elsewhere or computes in another type: a row each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from accelerate.hooks import remove_hook_from_submodules
from peft import LoraConfig

from contract.rows import ROWS, Row, each_row, on_models, on_models_if_slow, plainly, run, write_and_read
from models import arguments, cast
from referencenet import attach
from tiny import fill
from tolerances import BFLOAT16, ROUNDING, relative_error
from traces import traces


@each_row
@pytest.mark.parametrize(("name", "rows"), [("sd1", 1), ("motion", 2)])
def test_gradient_checkpointing_gives_the_same_gradients(name: str, row: Row, rows: int):
    """Also of the write pass: with as many rows as the read pass nothing but a flag tells the two apart."""
    gradients = []
    for checkpointing in (False, True):
        unet = row.model(name).requires_grad_(True).train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        with row.attached(unet, name) as link:
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
    reader = row.model("sd1")
    writer = (row.model("sd1") if row.writes_itself else row.writer("sd1", reader)).requires_grad_(True)
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
    with row.attached(unet, name) as link:
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
    with row.attached(unet, name) as link:
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
    with row.attached(unet, name) as link:
        expected = write_and_read(link, written, read)
    accelerate.cpu_offload(unet, execution_device=torch.device("cpu"))
    assert next(unet.parameters()).device.type == "meta"
    plain, before = run(unet, read), traces(unet)
    with row.attached(unet, name) as link:
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
    with row.attached(unet) as link:
        expected = write_and_read(link, written, read)
    blocks = {"num_blocks_per_group": 1} if level == "block_level" else {}
    cpu = torch.device("cpu")
    unet.enable_group_offload(cpu, cpu, offload_type=level, offload_to_disk_path=str(tmp_path), **blocks)
    with row.attached(unet) as link:
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
    with row.attached(unet) as link:
        bank = link.write(**written, projected=projected)
        with link.reading(bank, weights=[0.5, 1.0]):
            ours = run(unet, read)
    assert relative_error(ours, plainly("sd1", unet, row, written, read, guided=True)) < ROUNDING


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
    with row.attached(unet) as link:
        expected = write_and_read(link, written, read)
        replace(unet)
        assert relative_error(run(unet, read), plain) < ROUNDING
        assert relative_error(write_and_read(link, written, read), expected) < ROUNDING
        assert relative_error(run(unet, read), plain) < ROUNDING
    with row.attached(unet) as link:
        assert relative_error(run(unet, read), plain) < ROUNDING
        assert relative_error(write_and_read(link, written, read), expected) < ROUNDING
    if replace is fuse:
        unet.unfuse_qkv_projections()
        assert unet.attn_processors == before, "the very processors of before"
    assert relative_error(run(unet, read), plain) < ROUNDING


@each_row
@pytest.mark.parametrize("projected", [True, False], ids=["projected", "inputs"])
@torch.no_grad()
def test_lora_layers_are_written_and_read_with(row: Row, projected: bool):
    """At the scale of the pass, also where the reader's own layers project what a bank holds."""
    unet = row.model("sd1")
    written, read = arguments("sd1", 2, 0), arguments("sd1", 2, 10)
    with row.attached(unet) as link:
        without = write_and_read(link, written, read)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    with torch.random.fork_rng(devices=[]):
        unet.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    fill(unet, 60, only="lora_")
    scale = {"cross_attention_kwargs": {"scale": 0.5}}
    for changes in ({}, scale):
        with row.attached(unet) as link:
            bank = link.write(**written | changes, projected=projected)
            with link.reading(bank):
                ours = run(unet, read | changes)
        expected = plainly("sd1", unet, row, written | changes, read | changes)
        assert relative_error(ours, expected) < 1.5 * ROUNDING  # AdaIN divides by deviations
        assert relative_error(ours, without) > 1e-3
