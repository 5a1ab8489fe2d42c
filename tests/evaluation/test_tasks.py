"""Every task's cases: the truth is the best, through an autoencoder a little less, another person's truth is worse."""

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from referencenet.builtin.drawn import size_of
from referencenet.builtin.load import load, load_observer
from referencenet.builtin.training.vae import reconstruct
from referencenet.evaluation.looking import look, squared_up
from referencenet.evaluation.systems import TASKS, benchmark_paperdoll, task_of
from referencenet.evaluation.task import Task, link_cut, unseen
from referencenet.methods.tiny import tiny_pipeline
from referencenet.paperdoll.character import split

KINDS = {kind.__name__: system for system, kind in TASKS.items()}


@cache
def task(name: str) -> Task:
    """Two cases of a kind of task, drawn once."""
    system = KINDS[name]
    width, height = size_of(system)
    return TASKS[system](2, 1, (64 * width // height, 64), load_observer())


SLOWEST = "Talking"  # renders each frame with the mouth closed and open, too


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == SLOWEST else ()) for name in KINDS]
)
def test_scores_know_the_truth_from_its_copy_and_from_somebody_elses(name: str) -> None:
    cases = task(name)
    frames = cases.truth.reshape(-1, *cases.truth.shape[-3:])
    restored = reconstruct(load("base").vae, frames).reshape(cases.truth.shape)
    truth, near, other = (cases.scores(drawn) for drawn in (cases.truth, restored, np.roll(cases.truth, 1, axis=0)))
    assert truth.keys() == {measure.name for measure in cases.measures}
    for measure in cases.measures:
        sign = 1 if measure.better == "more" else -1
        assert sign * truth[measure.name] >= sign * other[measure.name], measure.name
    first = cases.measures[0]
    sign = 1 if first.better == "more" else -1
    assert sign * near[first.name] > sign * other[first.name]


@pytest.mark.parametrize("name", ["TryOn", "Composed"])
def test_the_same_seed_draws_the_same_cases(name: str) -> None:
    again = TASKS[KINDS[name]](2, 1, task(name).size, load_observer())
    assert np.array_equal(again.truth, task(name).truth)


def test_characters_are_of_the_test_split_and_of_the_seed() -> None:
    assert all(split(character) == "test" for character in unseen(5, 1))
    assert unseen(2, 1) == unseen(5, 1)[:2]
    assert unseen(2, 1) != unseen(2, 2)


def test_one_character_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        benchmark_paperdoll("idm_vton", 1)


def test_there_is_a_measurement_of_all_that_can_be_trained() -> None:
    with pytest.raises(ValueError, match=r"no measurement of 'idm_vto'.*Did you mean 'idm_vton'"):
        task_of("idm_vto")


def test_pictures_are_put_into_squares_and_places_come_back() -> None:
    picture = np.zeros((1, 64, 48, 3), dtype=np.uint8)
    square, scale, offset = squared_up(picture)
    assert square.shape == (1, 64, 64, 3)
    place = np.array([24 + 8, 16]) / 64  # the middle of the picture, in the square
    assert place * scale - offset == pytest.approx([0.5, 0.25])
    seen = look(load_observer(), task("TryOn").truth)
    assert seen.points.shape == (2, 18, 2)
    assert len(seen.aspects) == 2


def test_a_cut_link_reads_nothing_and_comes_back() -> None:
    pipe = tiny_pipeline("magicpose")
    pipe.set_progress_bar_config(disable=True)
    people = [Image.fromarray(picture) for picture in task("Animation").truth[:, 0]]
    black = [Image.new("RGB", (64, 64))]

    def drawn(person: Image.Image) -> np.ndarray:
        options = {"width": 64, "height": 64, "num_inference_steps": 1, "output_type": "np"}
        return np.asarray(pipe(person, black, generator=torch.Generator().manual_seed(0), **options).frames)

    linked = [drawn(person) for person in people]
    with link_cut(pipe):
        cut = [drawn(person) for person in people]
    assert all(np.array_equal(cut[0], other) for other in cut)
    assert not np.array_equal(linked[0], linked[1])
    assert np.array_equal(drawn(people[0]), linked[0])
    assert "spec" not in vars(pipe)
