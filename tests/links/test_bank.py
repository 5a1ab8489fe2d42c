"""The bank as a value: mapped, moved, counted, saved and read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from referencenet import ReferenceBank
from tiny import latents


def bank(rows: int = 2) -> ReferenceBank:
    return ReferenceBank(
        hidden={"a.attn1": latents(1, rows, 3, 5)},
        projected={"b.attn1": (latents(2, rows, 5, 3), latents(3, rows, 5, 3))},
        statistics={"mid_block": (latents(4, rows, 7), latents(5, rows, 7).square())},
    )


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_rows_are_those_of_every_site(rows: int):
    assert bank(rows).rows == rows


def test_an_empty_bank_and_one_of_two_minds_have_no_rows():
    with pytest.raises(ValueError, match="no site"):
        _ = ReferenceBank().rows
    mixed = bank(2)
    mixed.hidden["c.attn1"] = latents(6, 3, 3, 5)
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        _ = mixed.rows


def test_map_and_to_reach_every_tensor_and_leave_the_bank_alone():
    original = bank()
    half = original.to(torch.bfloat16)
    tensors = [*half.hidden.values(), *half.projected["b.attn1"], *half.statistics["mid_block"]]
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert original.hidden["a.attn1"].dtype == torch.float32
    assert original.map(lambda tensor: tensor[:1]).rows == 1
    assert original.rows == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_saving_keeps_every_bit_and_type(dtype: torch.dtype, tmp_path: Path):
    original = bank().to(dtype)
    original.save(str(tmp_path / "hero.safetensors"))
    loaded = ReferenceBank.load(tmp_path / "hero.safetensors")
    assert torch.equal(loaded.hidden["a.attn1"], original.hidden["a.attn1"])
    assert all(map(torch.equal, loaded.projected["b.attn1"], original.projected["b.attn1"]))
    assert all(map(torch.equal, loaded.statistics["mid_block"], original.statistics["mid_block"]))
    assert loaded.hidden["a.attn1"].dtype == dtype


def test_saving_takes_views_and_gradients_and_replaces_an_older_file(tmp_path: Path):
    path = tmp_path / "hero.safetensors"
    bank(1).save(path)
    wide = latents(7, 3, 3, 5).requires_grad_()
    ReferenceBank(hidden={"a": wide[:2].transpose(1, 2), "b": wide[1:]}).save(path)
    loaded = ReferenceBank.load(path)
    assert torch.equal(loaded.hidden["a"], wide[:2].transpose(1, 2))
    assert not loaded.hidden["b"].requires_grad
    assert [file.name for file in tmp_path.iterdir()] == ["hero.safetensors"]


def test_a_bank_that_cannot_be_saved_leaves_no_file(tmp_path: Path):
    with pytest.raises(ValueError, match="empty bank"):
        ReferenceBank().save(tmp_path / "hero.safetensors")
    with pytest.raises(Exception, match=r"nowhere|No such file"):
        bank().save(tmp_path / "nowhere" / "hero.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lost", ["value/b.attn1", "variance/mid_block"])
def test_a_file_that_lost_half_of_a_pair_is_refused_by_name(lost: str, tmp_path: Path):
    path = tmp_path / "hero.safetensors"
    bank().save(path)
    tensors = load_file(path)
    del tensors[lost]
    save_file(tensors, path, metadata={"format": "referencenet-bank-1"})
    with pytest.raises(ValueError, match=lost.replace(".", r"\.")):
        ReferenceBank.load(path)


def test_a_file_with_an_unknown_entry_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "hero.safetensors"
    save_file({"surprise": torch.zeros(1)}, path, metadata={"format": "referencenet-bank-1"})
    with pytest.raises(ValueError, match="surprise"):
        ReferenceBank.load(path)


def stored(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    save_file(tensors, path, metadata={"format": "referencenet-bank-1"})
    return path


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"hidden/a": torch.tensor([[[1.0, float("nan")]]])}, "not finite in 'hidden/a'"),
        ({"hidden/a": torch.full((1, 1, 2), float("-inf")).half()}, "not finite"),
        ({"hidden/a": torch.zeros(1, 2, 2, dtype=torch.int64)}, "is I64"),
        ({"hidden/a": torch.zeros(1, 0, 2)}, r"\[1, 0, 2\]"),
        ({"hidden/a": torch.zeros(2, 2)}, "2 dimensions instead of 3"),
        ({"key/a": torch.zeros(1, 2, 2), "value/a": torch.zeros(1, 3, 2)}, "differ in shape"),
        ({"hidden/a": torch.zeros(1, 2, 2), "hidden/b": torch.zeros(2, 2, 2)}, "differ in rows"),
        ({"context/a": torch.zeros(1, 2, 2)}, "there is none"),
    ],
)
def test_what_no_bank_holds_is_refused_in_a_line(tensors: dict[str, torch.Tensor], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message) as caught:
        ReferenceBank.load(stored(tensors, tmp_path / "hero.safetensors"))
    assert "\n" not in str(caught.value)


def test_a_header_that_claims_the_world_is_refused_before_memory_is_taken(tmp_path: Path):
    path = tmp_path / "hero.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="claim a header of 1099511627776 bytes"):
        ReferenceBank.load(path)
    header = b'{"hidden/a":{"dtype":"F32","shape":[1,1000000,1000000],"data_offsets":[0,4000000000000]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        ReferenceBank.load(path)


def test_its_size_on_disk_is_known_beforehand(tmp_path: Path):
    bank().save(tmp_path / "hero.safetensors")
    assert bank().nbytes <= (tmp_path / "hero.safetensors").stat().st_size <= bank().nbytes + 2000


def test_it_prints_a_line_a_site_and_a_total():
    lines = repr(bank()).splitlines()
    assert [cell.strip() for cell in lines[1].split("  ") if cell.strip()] == [
        "a.attn1",
        "input",
        "2 x 3 x 5",
        "float32",
        "120 B",
    ]
    assert lines[-1] == f"total: 3 sites, {bank().nbytes} B"


@pytest.mark.parametrize("size", [(16, 24), (32, 48)])
def test_masked_tokens_are_zero_but_for_a_rim_of_one(size: tuple[int, int]):
    masks = torch.zeros(2, 1, *size)
    masks[0, :, : size[0] // 4, : size[1] // 4] = 1
    hidden = {f"of_{n}": torch.ones(2, n, 3) for n in (96, 24, 6)}  # 8 x 12, 4 x 6, 2 x 3
    given = ReferenceBank(hidden=hidden, context={"token": torch.ones(1)})
    found = given.masked(masks)
    grid = found.hidden["of_96"][0, :, 0].view(8, 12)
    assert grid[:3, :4].all()
    assert grid.sum() == 12
    assert found.hidden["of_24"][0, :, 0].view(4, 6).sum() == 2 * 3
    assert all(not tensor[1].any() for tensor in found.hidden.values()), "black everywhere"
    assert found.context.keys() == {"token"}
    assert given.hidden["of_96"].all()


def test_soft_masks_are_summed_over_neighbours():
    found = ReferenceBank(hidden={"a": torch.ones(1, 16, 1)}).masked(torch.full((1, 1, 8, 8), 0.1))
    assert torch.allclose(found.hidden["a"].view(4, 4)[1, 1], torch.tensor(0.9))
    assert torch.allclose(found.hidden["a"].view(4, 4)[0, 0], torch.tensor(0.4))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.ones(3, 1, 8, 8), "expected \\(2 or 1, 1"),
        (torch.ones(2, 8, 8), "expected \\(2 or 1, 1"),
        (torch.full((2, 1, 8, 8), 255.0), r"\[0, 1\]"),
        (torch.full((2, 1, 8, 8), float("nan")), r"\[0, 1\]"),
        (torch.ones(1, 1, 10, 10), "shrinks to 3 x 3 tokens, but the site has 16"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: torch.Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        ReferenceBank(hidden={"a": torch.ones(2, 16, 1)}).masked(masks)


def test_only_inputs_can_be_masked():
    with pytest.raises(ValueError, match="projected=False"):
        bank().masked(torch.ones(1, 1, 8, 8))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_not_written(value: float, tmp_path: Path):
    broken = bank()
    broken.hidden["a.attn1"][0, 1, 2] = value
    with pytest.raises(ValueError, match=r"b.safetensors is not written: 'hidden/a.attn1' holds numbers .* not finite"):
        broken.save(tmp_path / "b.safetensors")
    assert not list(tmp_path.iterdir())
