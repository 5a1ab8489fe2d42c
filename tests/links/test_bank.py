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
