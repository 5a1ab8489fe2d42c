"""A series of banks: refused by name where it does not fit, saved as one file, bounded when it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from referencenet import BankSeries, ReferenceBank
from referencenet.links import Schedule
from tiny import latents, scheduler


def set_to(steps: int, **changes: Any) -> Any:
    chosen = scheduler(**changes)
    chosen.set_timesteps(steps)
    return chosen


def bank(seed: int) -> ReferenceBank:
    return ReferenceBank(hidden={"mid_block.attn1": latents(seed, 1, 4, 3)}, context={"token": latents(seed, 1, 2)})


@pytest.fixture
def series() -> BankSeries:
    given = set_to(3)
    banks = {int(t): bank(i) for i, t in enumerate(given.timesteps)}
    return BankSeries(banks, Schedule.of(given, width=64, height=48))


def test_it_is_a_mapping_from_timestep_to_bank(series: BankSeries):
    timesteps = set_to(3).timesteps
    assert [*series] == [int(t) for t in timesteps]
    assert series[timesteps[1]] is series.banks[int(timesteps[1])]
    with pytest.raises(KeyError, match="no bank for timestep 5.*3 steps"):
        _ = series[5]
    assert series.nbytes == 3 * (4 * 3 + 2) * 4
    assert series.to(torch.bfloat16).nbytes == series.nbytes // 2


def test_what_it_was_not_made_for_is_refused_by_name(series: BankSeries):
    size = {"width": 64, "height": 48}
    series.check(set_to(3), **size)
    euler = EulerDiscreteScheduler()
    euler.set_timesteps(3)
    with pytest.raises(ValueError, match="DDIMScheduler, but this is EulerDiscreteScheduler"):
        series.check(euler, **size)
    with pytest.raises(ValueError, match="another configuration"):
        series.check(set_to(3, beta_end=0.02), **size)
    with pytest.raises(ValueError, match="3 steps .* 4 steps"):
        series.check(set_to(4), **size)
    with pytest.raises(ValueError, match="64 x 48, but this is 48 x 64"):
        series.check(set_to(3), width=48, height=64)


def test_it_is_saved_as_one_file_that_says_what_it_is_for(series: BankSeries, tmp_path: Path):
    path = tmp_path / "hero.safetensors"
    series.save(path)
    assert series.nbytes < path.stat().st_size < series.nbytes + 2000
    with safe_open(path, framework="pt") as file:
        made = json.loads(file.metadata()["made_for"])
    assert (made["scheduler"], made["width"], made["height"], made["dtype"]) == ("DDIMScheduler", 64, 48, "float32")
    loaded = BankSeries.load(path)
    assert loaded.schedule == series.schedule
    assert [*loaded] == [*series]
    for timestep, there in loaded.items():
        assert torch.equal(there.hidden["mid_block.attn1"], series[timestep].hidden["mid_block.attn1"])
        assert torch.equal(there.context["token"], series[timestep].context["token"])
    assert "3 steps, 64 x 48" in repr(loaded)
    with pytest.raises(ValueError, match="not a reference bank"):
        ReferenceBank.load(path)
    with pytest.raises(ValueError, match="empty series"):
        BankSeries({}, series.schedule).save(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("made_for", "message"),
    [
        (None, "for which schedule"),
        ("[" * 5000, "for which schedule"),
        ('{"scheduler": "DDIM", "digest": "", "timesteps": [1e999], "width": 8, "height": 8}', "for which schedule"),
        ('{"scheduler": "DDIM", "digest": "", "timesteps": [], "width": 8, "height": 8}', "claims 0 steps"),
        ('{"scheduler": "DDIM", "digest": "", "timesteps": [5], "width": 8, "height": 8}', "of no step"),
    ],
)
def test_a_file_that_lies_about_its_schedule_is_refused_in_a_line(
    series: BankSeries, tmp_path: Path, made_for: str | None, message: str
):
    path = tmp_path / "hero.safetensors"
    series.save(path)
    metadata = {"format": "referencenet-series-1"} | ({} if made_for is None else {"made_for": made_for})
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(ValueError, match=message) as caught:
        BankSeries.load(path)
    assert "\n" not in str(caught.value)
