"""What every link owes the house. A new link joins by a row in `rows.py`; nothing here names one."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from contract.rows import PARTS, ROWS, Row, each_row, on_models, plainly, run, write_and_read
from models import MODELS, arguments
from referencenet import AdaIN, Concat, ReferenceBank, attach
from referencenet.links import is_linked
from tiny import fill
from tolerances import ROUNDING, relative_error
from traces import traces


@pytest.mark.parametrize("row", (ROWS | PARTS).values(), ids=ROWS | PARTS)
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_reads_what_the_specification_says(name: str, row: Row):
    unet = row.model(name)
    written, read = arguments(name, 2, 0), arguments(name, 2, 10)
    with row.attached(unet, name) as link:
        ours = write_and_read(link, written, read)
    assert relative_error(ours, plainly(name, unet, row, written, read)) < ROUNDING


@on_models
@torch.no_grad()
def test_detached_is_as_if_never_attached(name: str, row: Row):
    unet = row.model(name)
    read = arguments(name, 2, 10)
    plain, before = run(unet, read), traces(unet)
    with row.attached(unet, name) as link:
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
    with row.attached(unet) as link:
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
    with row.attached(unet) as link:
        bank = link.write(**arguments("sd1", 2, 0))
        with link.reading(bank):
            first = run(unet, read)
        for others in ([Concat()], [AdaIN()], row.links):
            with pytest.raises(ValueError, match="linked already"), attach(unet, others):
                pass
        with link.reading(bank):
            assert torch.equal(run(unet, read), first)
    assert traces(unet) == before
    with row.attached(unet):
        pass


@each_row
@torch.no_grad()
def test_two_links_on_two_models_never_meet(row: Row):
    unets = [row.model("sd1"), fill(row.model("sd1"), 50)]
    written = [arguments("sd1", 2, 0), arguments("sd1", 1, 20)]
    read = [arguments("sd1", 2, 10), arguments("sd1", 3, 30, size=(6, 10))]
    alone = []
    for unet, w, r in zip(unets, written, read, strict=True):
        with row.attached(unet) as link:
            alone.append(write_and_read(link, w, r, None if len(alone) == 0 else [1.0] * 3))
    with ExitStack() as stack:
        first, second = (stack.enter_context(row.attached(unet)) for unet in unets)
        banks = [first.write(**written[0]), second.write(**written[1])]
        with first.reading(banks[0]), second.reading(banks[1], weights=[1.0] * 3):
            assert torch.equal(run(unets[1], read[1]), alone[1])
            assert torch.equal(run(unets[0], read[0]), alone[0])


@on_models
@torch.no_grad()
def test_a_saved_bank_is_the_bank(name: str, row: Row, tmp_path: Path):
    unet = row.model(name)
    read = arguments(name, 2, 10)
    with row.attached(unet, name) as link:
        bank = link.write(**arguments(name, 2, 0))
        with link.reading(bank):
            expected = run(unet, read)
    bank.save(tmp_path / "hero.safetensors")
    loaded = ReferenceBank.load(tmp_path / "hero.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["hero.safetensors"]
    with row.attached(unet, name) as link, link.reading(loaded):
        assert torch.equal(run(unet, read), expected)


@each_row
@torch.no_grad()
def test_a_broken_bank_file_teaches(row: Row, tmp_path: Path):
    with row.attached(row.model("sd1")) as link:
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
    with row.attached(row.model("sd1")) as link:
        for site in link.sites:
            bank = link.write(**arguments("sd1", 1, 0))
            for part in (bank.projected, bank.hidden, bank.statistics):
                part.pop(site.name, None)
            with pytest.raises(KeyError, match=site.name.replace(".", r"\.")), link.reading(bank):
                pass


@on_models
@pytest.mark.parametrize(("rows", "size", "tokens"), [(1, (8, 8), 2), (3, (4, 10), 3), (5, (6, 2), 5)])
@torch.no_grad()
def test_any_batch_size_and_context(name: str, row: Row, rows: int, size: tuple[int, int], tokens: int):
    unet = row.model(name)
    written = arguments(name, rows, 0, size=(size[1], size[0]), tokens=tokens)
    read = arguments(name, rows, 10, size=size, tokens=tokens + 1)
    with row.attached(unet, name) as link:
        ours = write_and_read(link, written, read)
    assert relative_error(ours, plainly(name, unet, row, written, read)) < ROUNDING


@on_models
@torch.no_grad()
def test_row_weights_blend_and_rows_spread_evenly_over_the_bank(name: str, row: Row):
    unet = row.model(name)
    written, read = arguments(name, 2, 0), arguments(name, 6, 10)
    with row.attached(unet, name) as link:
        ours = write_and_read(link, written, read, [0.5] * 3 + [1.0] * 3)
    assert relative_error(ours, plainly(name, unet, row, written, read, guided=True)) < ROUNDING


@on_models
@torch.no_grad()
def test_rows_of_weight_zero_are_plain(name: str, row: Row):
    unet = row.model(name)
    read = arguments(name, 3, 10)
    plain = run(unet, read)
    with row.attached(unet, name) as link:
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
    with row.attached(unet, "motion") as link:
        ours = write_and_read(link, written, read)
        banks = link.write(**written)
    assert relative_error(ours, plainly("motion", unet, row, written, read)) < ROUNDING
    assert banks.rows == 2


@each_row
@torch.no_grad()
def test_a_copy_of_a_linked_model_is_a_model_of_its_own(row: Row):
    unet = row.model("sd1")
    read = arguments("sd1", 2, 10)
    plain = run(unet, read)
    with row.attached(unet) as link:
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
    with (
        row.attached(unet) as link,
        link.writer.unet.conv_out.register_forward_hook(lambda *_: ends.append(1)),  # pyright: ignore
    ):
        bank = link.write(**arguments("sd1", 2, 0))
        assert not ends
        assert {*bank.projected, *bank.hidden, *bank.statistics} == {site.name for site in link.sites}
        link.write(**arguments("sd1", 2, 0), stop=False)
        assert ends == [1]
