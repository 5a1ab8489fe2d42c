"""The loop: schedules, resuming, checkpoints written whole, averages."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from referencenet.builtin.training.stepwise import Stepwise
from referencenet.training import spread
from referencenet.training.average import MovingAverage
from referencenet.training.checkpoint import RunFolder, State
from referencenet.training.config import OptimizerConfig, RunConfig
from referencenet.training.draws import step_generator
from referencenet.training.loop import fit


class Line(Stepwise):
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


def run_of(steps: int = 30, learning_rate: float = 0.05, muon: tuple[str, ...] = (), **changes: object) -> RunConfig:
    optimizer = OptimizerConfig(learning_rate=learning_rate, warmup=5, cooldown=0.3, muon=muon)
    return RunConfig(steps=steps, average=0.9, optimizer=optimizer, **changes)  # pyright: ignore[reportArgumentType]


SCHEDULE = run_of()


def same(one: State | None, other: State | None) -> bool:
    assert one is not None
    assert other is not None
    return all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


class Broken(Line):
    """The same, but the process dies at a batch."""

    def __init__(self, at: int, how: type[BaseException]) -> None:
        super().__init__()
        self.at, self.how = at, how

    def loss(self, step: int) -> dict[str, Tensor]:
        if step == self.at:
            raise self.how("on purpose")
        return super().loss(step)


@pytest.mark.parametrize("kind", [Line, Wide])
def test_resumed_run_is_bit_for_bit_the_unbroken_one(kind: type[Line], tmp_path: Path) -> None:
    config = run_of(learning_rate=0.01, muon=("layer",)) if kind is Wide else SCHEDULE
    whole, broken, later = kind(), kind(), kind()
    fit(whole, tmp_path / "whole", config, quiet=True)
    assert fit(broken, tmp_path / "broken", config, quiet=True, stop_after=13) == 13
    assert fit(later, tmp_path / "broken", config, quiet=True) == 30
    assert torch.equal(whole.layer.weight, later.layer.weight)
    states = [RunFolder(tmp_path / name).load() for name in ("whole", "broken")]
    assert same(*states)
    assert states[1] is not None
    assert set(states[1].optimizers or ()) == ({"muon", "adamw"} if kind is Wide else {"adamw"})


@pytest.mark.parametrize(("how", "kept"), [(RuntimeError, 10), (KeyboardInterrupt, 14)])
def test_a_run_that_dies_within_an_accumulation_goes_on_in_the_same_bits(
    how: type[BaseException], kept: int, tmp_path: Path
) -> None:
    """Three batches make a step; the process dies at the second of step 14, and what it had done of it is forgotten."""
    config = run_of(accumulate=3, save_every=5)
    whole, later = Line(), Line()
    fit(whole, tmp_path / "whole", config, quiet=True)
    with pytest.raises(how, match="on purpose"):
        fit(Broken(14 * 3 + 1, how), tmp_path / "broken", config, quiet=True)
    found = RunFolder(tmp_path / "broken").load()
    assert found is not None
    assert found.step == kept
    fit(later, tmp_path / "broken", config, quiet=True)
    assert torch.equal(whole.layer.weight, later.layer.weight)


def test_accumulated_batches_are_one_larger_batch(tmp_path: Path) -> None:
    class Halves(Line):
        def loss(self, step: int) -> dict[str, Tensor]:
            x = torch.randn(6, 2, generator=step_generator(3, step // 2))[3 * (step % 2) :][:3]
            return {"loss": (self.layer(x) - 3 * x.sum(dim=1, keepdim=True)).square().mean()}

    class Both(Line):
        def loss(self, step: int) -> dict[str, Tensor]:
            x = torch.randn(6, 2, generator=step_generator(3, step))
            return {"loss": (self.layer(x) - 3 * x.sum(dim=1, keepdim=True)).square().mean()}

    halves, both = Halves(), Both()
    fit(halves, tmp_path / "halves", run_of(accumulate=2), quiet=True)
    fit(both, tmp_path / "both", run_of(), quiet=True)
    torch.testing.assert_close(halves.layer.weight, both.layer.weight)
    records = [RunFolder(tmp_path / name).records()[-1]["loss"] for name in ("halves", "both")]
    assert records[0] == pytest.approx(records[1], rel=1e-4)


def test_old_checkpoints_are_removed(tmp_path: Path) -> None:
    fit(Line(), tmp_path, run_of(save_every=4, keep=3), quiet=True)
    names = [path.name for path in RunFolder(tmp_path).checkpoints()]
    assert names == ["step-00000024", "step-00000028", "step-00000030"]


def test_state_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    fit(Wide(), tmp_path, SCHEDULE, quiet=True, stop_after=2)
    with pytest.raises(ValueError, match="was trained with adamw, but this stage trains with adamw, muon"):
        fit(Wide(), tmp_path, run_of(muon=("layer",)), quiet=True)


def test_finished_run_is_left_alone_and_gives_its_average(tmp_path: Path) -> None:
    first, second = Line(), Line()
    fit(first, tmp_path, SCHEDULE, quiet=True)
    assert fit(second, tmp_path, SCHEDULE, quiet=True) == 30
    assert torch.equal(first.layer.weight, second.layer.weight)
    own = RunFolder(tmp_path).load()
    assert own is not None
    assert own.average is not None
    assert torch.equal(own.average["layer.weight"], first.layer.weight)
    assert not torch.equal(own.weights["layer.weight"], first.layer.weight)


def test_training_learns_and_tells(tmp_path: Path) -> None:
    fit(Line(), tmp_path, run_of(steps=200, validate_every=100), quiet=True)
    records = RunFolder(tmp_path).records()
    assert [record["step"] for record in records] == [50, 100, 150, 200]
    assert records[-1]["loss"] < 0.2 * records[0]["loss"]
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == ["000100.png", "000200.png"]


def test_a_loss_that_is_no_number_ends_the_run_with_advice(tmp_path: Path) -> None:
    class Lost(Line):
        def loss(self, step: int) -> dict[str, Tensor]:
            return {"loss": super().loss(step)["loss"] * (float("nan") if step == 3 else 1.0)}

    with pytest.raises(ValueError, match="lower optimizer.learning_rate"):
        fit(Lost(), tmp_path, SCHEDULE, quiet=True)
    assert not RunFolder(tmp_path).checkpoints()


def test_backward_runs_inside_of_the_losses_context(tmp_path: Path) -> None:
    order: list[str] = []

    class Watched(Line):
        @contextmanager
        def losses(self, batch: int) -> Generator[dict[str, Tensor]]:
            handle = self.layer.weight.register_hook(lambda _gradient: order.append("backward"))
            yield self.loss(batch)
            handle.remove()
            order.append("left")

    fit(Watched(), tmp_path, run_of(steps=2), quiet=True)
    assert order == ["backward", "left"] * 2


def test_interrupted_save_keeps_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    run.save(State(step=1, weights={"layer.weight": torch.ones(2)}))

    def broken(_state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        run.save(State(step=2, weights={"layer.weight": torch.zeros(2)}))
    found = run.load()
    assert found is not None
    assert found.step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    folder = run.save(State(step=1, weights={"layer.weight": torch.ones(2)}))
    (folder / "weights.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match="not a complete checkpoint.*remove it to go on from an older one"):
        run.load()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"vae.weight": torch.ones(1)}, "layer.bias and 2 more|vae.weight|layer.weight"),
        ({"layer.weight": torch.ones(1, 3), "layer.bias": torch.ones(1)}, r"shape \(1, 3\).*trains \(1, 2\)"),
    ],
)
def test_state_of_another_stage_is_refused(weights: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    RunFolder(tmp_path).save(State(step=1, weights=weights))
    with pytest.raises(ValueError, match=message):
        fit(Line(), tmp_path, SCHEDULE, quiet=True)


def test_runs_of_an_earlier_version_are_not_begun_anew_in_silence(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="earlier version"):
        fit(Line(), tmp_path, SCHEDULE, quiet=True)


def test_tensorboard_is_told_what_the_log_is_told(tmp_path: Path) -> None:
    fit(Line(), tmp_path, run_of(steps=6, trackers=("tensorboard",), log_every=2, validate_every=6), quiet=True)
    (events,) = {path.parent for path in tmp_path.rglob("events.out.tfevents.*")}
    found = EventAccumulator(str(events))
    found.Reload()
    records = [record for record in RunFolder(tmp_path).records() if "loss" in record]
    assert {"loss", "norm", "rate"} <= set(found.Tags()["scalars"])
    for name in ("loss", "norm"):
        told = {event.step: event.value for event in found.Scalars(name)}
        assert told == pytest.approx({record["step"]: record[name] for record in records}, rel=1e-5)


def test_a_bar_tells_the_loss_and_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    fit(Line(), tmp_path, run_of(steps=4, log_every=1))
    told = capsys.readouterr().out
    assert re.search(r"line .* 4/4 0:00:\d\d 0:00:00 loss \d+\.\d{4}  \d+\.\d\d s/step", told), told
    fit(Line(), tmp_path / "quiet", run_of(steps=1), quiet=True)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ["tensorbord", "wandb"])
def test_trackers_that_are_not_there_are_refused_before_anything_runs(name: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, ModuleNotFoundError), match="did you mean 'tensorboard'|is not installed"):
        fit(Line(), tmp_path, run_of(trackers=(name,)), quiet=True)


@pytest.mark.parametrize(
    ("changes", "told", "said"),
    [
        ({"muon": ("layer",)}, {}, r"optimizer.muon needs whole matrices; set optimizer.muon=\[\]"),
        ({"name": "adamw8bit"}, {}, "adamw8bit needs whole weights; set optimizer.name=adamw"),
        ({}, {"FSDP_OFFLOAD_PARAMS": "true"}, "launch with --fsdp_offload_params false"),
    ],
)
def test_what_needs_whole_weights_is_refused_where_they_are_spread(
    changes: dict[str, Any], told: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(spread.ASKED, "false")
    for key, value in {"ACCELERATE_USE_FSDP": "true", **told}.items():
        monkeypatch.setenv(key, value)
    config = run_of()
    with pytest.raises(ValueError, match=f"launched with FSDP, which spreads weights over processes, but .*{said}"):
        fit(Line(), tmp_path, replace(config, optimizer=replace(config.optimizer, **changes)), quiet=True)


def test_a_process_alone_has_nobody_to_share_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(spread.ASKED, "false")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    alone, shared = Line(), Line()
    fit(shared, tmp_path / "shared", run_of(), quiet=True)
    monkeypatch.setenv(spread.ASKED, "false")
    fit(alone, tmp_path / "alone", run_of(), quiet=True)
    assert torch.equal(alone.layer.weight, shared.layer.weight)


def test_half_precision_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fp16, which CPUs do not train in"):
        fit(Line(), tmp_path, run_of(precision="fp16"), quiet=True)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.2), (4, 1.0), (50, 1.0), (90, 0.5), (99, 0.05)])
def test_rate_rises_stays_and_falls(step: int, rate: float) -> None:
    optimizer = OptimizerConfig(learning_rate=1.0, warmup=5, cooldown=0.2)
    assert optimizer.rate(step, 100) == pytest.approx(rate)


def test_published_rate_is_constant() -> None:
    optimizer = OptimizerConfig(learning_rate=1e-5, warmup=1)
    assert {optimizer.rate(step, 30) for step in range(30)} == {1e-5}


def test_average_is_put_back_bit_for_bit() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    average = MovingAverage({"weight": parameter}, decay=0.5)
    with torch.no_grad():
        parameter += 1.0
    average.update()
    with average.applied():
        assert torch.allclose(parameter.detach(), torch.tensor([1.8182, 2.8182]), atol=1e-4)
    assert torch.equal(parameter.detach(), torch.tensor([2.0, 3.0]))


def test_impossible_decay_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decay is 1.0"):
        MovingAverage({}, decay=1.0)
