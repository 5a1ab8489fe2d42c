"""The loop: schedules, resuming, checkpoints written whole, averages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from referencenet.training.average import MovingAverage
from referencenet.training.checkpoint import RunFolder
from referencenet.training.trainer import Schedule, fit, step_generator


class Line:
    """A recipe that learns y = 3 x from noisy points."""

    name = "line"

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.layer = nn.Linear(2, 1)
        with torch.no_grad():
            self.layer.weight.fill_(0.5)
            self.layer.bias.zero_()
        self.modules = {"layer": self.layer}

    def loss(self, step: int) -> dict[str, Tensor]:
        x = torch.randn(5, 2, generator=step_generator(3, step))
        return {"loss": (self.layer(x) - 3 * x.sum(dim=1, keepdim=True)).square().mean()}

    def sheet(self) -> np.ndarray:
        return np.full((4, 6, 3), 7, np.uint8)


class Wide(Line):
    """The same with a layer that is wide enough for Muon."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)
        with torch.no_grad():
            nn.init.eye_(self.layer.weight)
            self.layer.bias.zero_()
        self.modules = {"layer": self.layer}

    def loss(self, step: int) -> dict[str, Tensor]:
        x = torch.randn(5, 64, generator=step_generator(3, step))
        return {"loss": (self.layer(x) - x.roll(1, dims=1)).square().mean()}


SCHEDULE = Schedule(steps=30, learning_rate=0.05, warmup=5, decay=0.9)


def test_resumed_run_is_bit_for_bit_the_unbroken_one(tmp_path: Path) -> None:
    whole, broken = Line(), Line()
    fit(whole, tmp_path / "whole", SCHEDULE, quiet=True)
    assert fit(broken, tmp_path / "broken", SCHEDULE, quiet=True, stop_after=13) == 13
    later = Line()
    assert fit(later, tmp_path / "broken", SCHEDULE, quiet=True) == 30
    assert torch.equal(whole.layer.weight, later.layer.weight)
    states = [RunFolder(tmp_path / name).load() for name in ("whole", "broken")]
    assert states[0] is not None
    assert states[1] is not None
    assert torch.equal(states[0]["modules"]["layer"]["weight"], states[1]["modules"]["layer"]["weight"])


def test_resumed_run_with_muon_is_bit_for_bit_the_unbroken_one(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, learning_rate=0.01, muon=("layer",))
    whole, broken, later = Wide(), Wide(), Wide()
    fit(whole, tmp_path / "whole", schedule, quiet=True)
    fit(broken, tmp_path / "broken", schedule, quiet=True, stop_after=13)
    fit(later, tmp_path / "broken", schedule, quiet=True)
    states = [RunFolder(tmp_path / name).load() for name in ("whole", "broken")]
    assert states[0] is not None
    assert states[1] is not None
    assert set(states[0]["optimizers"]) == {"Muon", "AdamW"}
    assert torch.equal(states[0]["modules"]["layer"]["weight"], states[1]["modules"]["layer"]["weight"])
    assert torch.equal(whole.layer.weight, later.layer.weight)


def test_state_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    fit(Wide(), tmp_path, SCHEDULE, quiet=True, stop_after=2)
    with pytest.raises(ValueError, match="was trained with AdamW, but this stage trains with Muon, AdamW"):
        fit(Wide(), tmp_path, replace(SCHEDULE, muon=("layer",)), quiet=True)


def test_finished_run_is_left_alone_and_gives_its_average(tmp_path: Path) -> None:
    first, second = Line(), Line()
    fit(first, tmp_path, SCHEDULE, quiet=True)
    assert fit(second, tmp_path, SCHEDULE, quiet=True) == 30
    assert torch.equal(first.layer.weight, second.layer.weight)


def test_training_learns_and_tells(tmp_path: Path) -> None:
    recipe = Line()
    fit(recipe, tmp_path, Schedule(steps=200, learning_rate=0.05, warmup=5, decay=0.9), sheet_every=100, quiet=True)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [50, 100, 150, 200]
    assert records[-1]["loss"] < 0.2 * records[0]["loss"]
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == ["000100.png", "000200.png"]


def test_interrupted_save_keeps_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    run.save({"step": 1})

    def broken(_state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        run.save({"step": 2})
    assert run.load() == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.state_path.write_bytes(b"no state at all")
    with pytest.raises(ValueError, match="no whole training state"):
        run.load()


def test_state_of_another_stage_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path).save({"step": 1, "modules": {"vae": {}}})
    with pytest.raises(ValueError, match="vae.*layer"):
        fit(Line(), tmp_path, SCHEDULE, quiet=True)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.2), (4, 1.0), (50, 1.0), (90, 0.5), (99, 0.05)])
def test_rate_rises_stays_and_falls(step: int, rate: float) -> None:
    schedule = Schedule(steps=100, learning_rate=1.0, warmup=5, cooldown=0.2)
    assert schedule.rate(step) == pytest.approx(rate)


def test_average_is_put_back_bit_for_bit() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    average = MovingAverage([parameter], decay=0.5)
    with torch.no_grad():
        parameter += 1.0
    average.update()
    with average.applied():
        assert torch.allclose(parameter.detach(), torch.tensor([1.8182, 2.8182]), atol=1e-4)
    assert torch.equal(parameter.detach(), torch.tensor([2.0, 3.0]))


def test_impossible_decay_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decay is 1.0"):
        MovingAverage([], decay=1.0)
