"""Row plans: which row reads what, folded into runs without loss."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from referencenet.links import RowPlan, Section, plan_rows


def unfold(plan: RowPlan) -> list[tuple[int, int, float]]:
    """Every reading row with its bank row and amount, by the definition of a section."""
    found = []
    for section in plan.sections:
        readers = (section.stop - section.start) // (section.bank_stop - section.bank_start)
        assert readers * (section.bank_stop - section.bank_start) == section.stop - section.start
        for row in range(section.start, section.stop):
            found.append((row, section.bank_start + (row - section.start) // readers, section.amount))
    return found


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=12))
@settings(deadline=None, max_examples=200)
def test_sections_unfold_to_the_list_they_were_made_from(rows: list[tuple[int, float]]):
    plan = plan_rows([source for source, _ in rows], [weight for _, weight in rows])
    assert plan.rows == len(rows)
    assert unfold(plan) == [(row, source, weight) for row, (source, weight) in enumerate(rows) if weight > 0]


@pytest.mark.parametrize(
    ("sources", "weights", "sections"),
    [
        ([0, 0, 0, 0], [1.0] * 4, (Section(0, 4, 0, 1, 1.0),)),
        ([0, 1, 2, 3], [1.0] * 4, (Section(0, 4, 0, 4, 1.0),)),
        ([0, 0, 1, 1], [1.0] * 4, (Section(0, 4, 0, 2, 1.0),)),
        ([0, 0, 0, 0], [0.0, 0.0, 1.0, 1.0], (Section(2, 4, 0, 1, 1.0),)),
        ([0, 0, 1, 1], [0.5, 0.5, 1.0, 1.0], (Section(0, 2, 0, 1, 0.5), Section(2, 4, 1, 2, 1.0))),
        ([0, 0], [0.0, 0.0], ()),
    ],
)
def test_rows_that_belong_together_become_one_section(
    sources: list[int], weights: list[float], sections: tuple[Section, ...]
):
    assert plan_rows(sources, weights).sections == sections


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="3 bank rows were named for 2 weights"):
        plan_rows([0, 0, 0], [1.0, 1.0])
