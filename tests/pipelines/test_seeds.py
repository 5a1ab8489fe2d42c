"""Pictures one after the other: each as alone, steps counted over all calls, and nothing that is no number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from referencenet.pipelines.seeds import draw_in_turn, draw_one, steps_counted
from systems import SIZE, SYSTEMS

SYSTEM = next(system for system in SYSTEMS if system.name == "catvton")


@pytest.fixture(scope="module")
def pipe() -> Any:
    return SYSTEM.make()


def drawn(pipe: Any, count: int, seed: int, **further: Any) -> list[tuple[int, np.ndarray]]:
    options = SYSTEM.given | {"width": SIZE[0], "height": SIZE[1], "num_inference_steps": 2} | further
    return [(each, np.asarray(picture)) for each, picture in draw_in_turn(pipe, count=count, seed=seed, **options)]


def test_each_picture_is_what_it_would_be_alone(pipe: Any) -> None:
    three = drawn(pipe, 3, 7)
    assert [seed for seed, _ in three] == [7, 8, 9]
    ((seed, alone),) = drawn(pipe, 1, 9)
    assert seed == 9
    assert np.array_equal(three[2][1], alone)
    assert not np.array_equal(three[0][1], three[1][1])


def test_steps_are_counted_over_all_calls(pipe: Any) -> None:
    told: list[tuple[int, int]] = []
    drawn(pipe, 2, 0, callback_on_step_end=steps_counted(lambda done, total: told.append((done, total)), 2))
    taken = len(pipe.scheduler.timesteps)
    assert told == [(done, 2 * taken) for done in range(1, 2 * taken + 1)]


def test_a_picture_that_is_no_number_is_refused() -> None:
    class Found:
        images = np.full((1, 8, 8, 3), np.nan, dtype=np.float32)

    with pytest.raises(ValueError, match="not finite"):
        draw_one(lambda **_: Found())
