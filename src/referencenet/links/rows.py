"""Which row of a reading batch reads which row of a bank, and how much.

Guidance batches, several pictures per prompt and frames all come down to one list: per row of the reading batch a bank
row and a weight. `sections` folds the list into runs, so that a bank row shared by many readers is broadcast, never
repeated, and rows that read nothing cost nothing. What an unconditional half sees is decided by whoever makes the
list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Section:
    """A run of reading rows [start, stop) over bank rows [bank_start, bank_stop), each read by equally many.

    `amount` above 0 is how far the run's output moves from plain attention to reading, above 1 beyond it. Rows that
    read zeros see as many tokens as the bank has, with keys and values of zero: they take part in the softmax, which is
    not the same as no bank.
    """

    start: int
    stop: int
    bank_start: int
    bank_stop: int
    amount: float
    reads_zeros: bool = False


@dataclass(frozen=True)
class RowPlan:
    """The reading batch: its number of rows and the sections that read.

    A model may fold frames into its rows (row = sample * frames + frame); then its rows are a multiple of `rows`.
    """

    rows: int
    sections: tuple[Section, ...]


def plan_rows(
    sources: Sequence[int], weights: Sequence[float], *, reads_zeros: Sequence[bool] | None = None
) -> RowPlan:
    """Fold per-row lists into sections.

    Args:
        sources: For each reading row the bank row it reads.
        weights: For each reading row how much it reads: 0 = plain, 1 = in full, more = extrapolated beyond that.
        reads_zeros: For each reading row whether it reads zeros in the bank's place; None: no row does.

    Raises:
        ValueError: If the lists differ in length, or a weight is negative or no finite number.
    """
    zeros = [False] * len(sources) if reads_zeros is None else reads_zeros
    if len({len(sources), len(weights), len(zeros)}) > 1:
        raise ValueError(
            f"{len(sources)} bank rows were named for {len(weights)} weights and {len(zeros)} rows that read zeros or "
            "not; give one of each per batch row."
        )
    for weight in weights:
        if not 0.0 <= weight < inf:
            raise ValueError(
                f"a row's weight is {weight}; expected 0 (reads nothing), 1 (reads in full) or a little more."
            )
    runs: list[Section] = []
    for row, (source, weight, zero) in enumerate(zip(sources, weights, zeros, strict=True)):
        last = runs[-1] if runs else None
        if weight == 0.0:
            continue
        if last and (last.stop, last.bank_start, last.amount, last.reads_zeros) == (row, source, weight, zero):
            runs[-1] = Section(last.start, row + 1, source, source + 1, weight, zero)
        else:
            runs.append(Section(row, row + 1, source, source + 1, weight, zero))
    folded: list[Section] = []
    for run in runs:
        last = folded[-1] if folded else None
        if last and _continues(last, run):
            folded[-1] = Section(last.start, run.stop, last.bank_start, run.bank_stop, run.amount, run.reads_zeros)
        else:
            folded.append(run)
    return RowPlan(rows=len(sources), sections=tuple(folded))


def _continues(last: Section, run: Section) -> bool:
    """Whether `run` goes on where `last` ends: next rows, next bank row, read alike, same number of readers."""
    readers = (last.stop - last.start) // (last.bank_stop - last.bank_start)
    adjacent = (last.stop, last.bank_stop) == (run.start, run.bank_start)
    alike = (last.amount, last.reads_zeros) == (run.amount, run.reads_zeros)
    return adjacent and alike and readers == run.stop - run.start
