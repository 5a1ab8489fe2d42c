"""The shipped weights: they load, are small, draw something, and the trained ReferenceNet brings a person over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from referencenet.builtin.demo import HEADINGS, demo
from referencenet.builtin.load import WEIGHTS, load, load_observer
from referencenet.builtin.training import benchmark
from referencenet.builtin.training.benchmark import benchmark_builtin


def test_weights_are_small_enough_to_ship() -> None:
    sizes = {part.name: sum(p.stat().st_size for p in part.rglob("*") if p.is_file()) / 1e6
             for part in WEIGHTS.iterdir()}  # fmt: skip
    assert sizes["base"] + sizes["referencenet"] < 25
    assert sum(sizes.values()) < 48


def test_unknown_name_and_missing_weights_teach(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no built-in pipeline 'nothing'"):
        load("nothing")  # pyright: ignore
    with pytest.raises(FileNotFoundError, match="no built-in weights"):
        load("base", folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="no built-in weights"):
        load_observer(folder=tmp_path)


def test_base_draws_something() -> None:
    pipe = load("base")
    pipe.set_progress_bar_config(disable=True)
    prompt = "full body, waving, facing front, smiling, meadow background"
    picture = np.asarray(pipe(prompt, height=64, width=64, num_inference_steps=4, output_type="np").images[0])
    assert picture.shape == (64, 64, 3)
    assert picture.std() > 0.05


@pytest.mark.slow
def test_demo_shows_that_the_reference_is_referred_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "STEPS", 6)
    shown = demo(2, seed=3)
    assert tuple(shown.scores) == HEADINGS
    assert all(part.std() > 10 for pictures in shown.pictures.values() for part in pictures)
    assert shown.scores["ReferenceNet"] > shown.scores["without"]


@pytest.mark.slow
def test_benchmark_is_made_by_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "NUM_OBSERVED", 4)  # of pictures for each of three accuracies
    monkeypatch.setattr(benchmark, "STEPS", 2)
    first, second = benchmark_builtin(2, seed=1), benchmark_builtin(2, seed=1)
    assert first == second
    assert set(first["gap_closed"]) == {"attention", "adain", "both", "referencenet"}


def test_benchmark_of_one_person_is_refused() -> None:
    with pytest.raises(ValueError, match="num_characters is 1"):
        benchmark_builtin(1)
