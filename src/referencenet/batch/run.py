"""A batch: jobs that are not drawn yet go to workers, and each result gets its place in one step when it is whole.

    OUT/results/ADDRESS/    a job's result, and job.json: what it is
    OUT/batch.jsonl         for each job its line, its state, where its result is, and why it failed

The address is a hash of all that decides a result, so that a job that was drawn before, in whatever batch of this
folder, is not drawn again. A job that fails, or whose worker dies, is tried once more.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from referencenet.batch.jobs import Job
from referencenet.batch.team import Outcome, Team
from referencenet.media.files import check_place, locked, written_whole
from referencenet.version import __version__

ATTEMPTS = 2
State = Literal["drawn", "kept", "failed", "not drawn"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a job.

    Attributes:
        job: The job.
        state: `drawn` now, `kept` from an earlier batch, `failed`, or `not drawn` when the batch was ended before.
        folder: Of its result, where there is one.
        reason: Why it failed.
        attempts: How often it was drawn in this batch.
    """

    job: Job
    state: State
    folder: Path | None = None
    reason: str = ""
    attempts: int = 0


class Waiting:
    """Jobs that wait, by the model that they need: a worker goes on with the model that it has.

    Args:
        jobs: In the order in which they shall be drawn.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._by_model: dict[str, deque[Job]] = defaultdict(deque)
        self._held: dict[int, str] = {}
        for job in jobs:
            self.put(job)

    def put(self, job: Job) -> None:
        """Let a job wait behind the others of its model."""
        self._by_model[job.model].append(job)

    def take(self, worker: int) -> Job | None:
        """A job for a worker: of its own model, else of the one that most jobs for each worker need; None: no more."""
        models = {model: jobs for model, jobs in self._by_model.items() if jobs}
        if not models:
            return None
        model = self._held.get(worker)
        if model not in models:
            others = [held for other, held in self._held.items() if other != worker]
            model = max(models, key=lambda each: len(models[each]) / (1 + others.count(each)))
        self._held[worker] = model
        return models[model].popleft()


def run_batch(
    jobs: Sequence[Job],
    out: Path,
    team: Callable[[int], Team],
    *,
    done: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Draw all jobs that have no result yet.

    Args:
        jobs: Checked, as `read_jobs` gives them.
        out: Folder of the batch.
        team: Makes workers for so many jobs; is not called when there is nothing to draw.
        done: Told of every job that has come to its end.

    Returns:
        What became of each job, in their order; equal jobs share a result.

    Raises:
        ValueError: If another batch is writing there.
    """
    check_place(out, folder=True)
    found: dict[str, Result] = {}
    with locked(out / "batch.jsonl"):
        work = out / ".work"
        shutil.rmtree(work, ignore_errors=True)  # of a batch that was killed
        try:
            _draw(jobs, out, work, team, found, done)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            results = [found.get(job.address) or Result(job=job, state="not drawn") for job in jobs]
            _write_report(out / "batch.jsonl", jobs, results)
    return results


def _draw(
    jobs: Sequence[Job],
    out: Path,
    work: Path,
    team: Callable[[int], Team],
    found: dict[str, Result],
    done: Callable[[Result], None],
) -> None:
    """Draw each address once, and enter what became of it."""
    different = {job.address: job for job in reversed(jobs)}  # of equal ones the first
    missing: list[Job] = []
    for job in sorted(different.values(), key=lambda job: job.line):
        if (place_of(out, job) / "job.json").is_file():
            found[job.address] = Result(job=job, state="kept", folder=place_of(out, job))
            done(found[job.address])
        else:
            missing.append(job)
    if not missing:
        return
    workers = team(len(missing))
    try:
        _share_out(Waiting(missing), workers, out, work, lambda result: _enter(result, found, done))
    finally:
        workers.end()


def _enter(result: Result, found: dict[str, Result], done: Callable[[Result], None]) -> None:
    found[result.job.address] = result
    done(result)


def _share_out(waiting: Waiting, workers: Team, out: Path, work: Path, done: Callable[[Result], None]) -> None:
    """Keep all workers drawing until nothing waits."""
    attempts = defaultdict[str, int](int)
    drawing: dict[int, Job] = {}
    while True:
        for worker in set(range(workers.size)) - drawing.keys():
            job = waiting.take(worker)
            if job is not None:
                attempts[job.address] += 1
                drawing[worker] = job
                workers.give(worker, job, _emptied(work / str(worker)))
        if not drawing:
            return
        for worker, outcome in workers.wait():
            job = drawing.pop(worker)
            tried = attempts[job.address]
            if not outcome.reason:
                folder = _put(work / str(worker), place_of(out, job), job, outcome)
                done(Result(job=job, state="drawn", folder=folder, attempts=tried))
            elif tried < ATTEMPTS:
                waiting.put(job)
            else:
                done(Result(job=job, state="failed", reason=outcome.reason, attempts=tried))


def place_of(out: Path, job: Job) -> Path:
    """The folder of a job's result."""
    return out / "results" / job.address


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _put(folder: Path, place: Path, job: Job, outcome: Outcome) -> Path:
    """Move a result that is whole to its place."""
    document = {
        "job": {"command": job.command, **job.settings},
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()),
        "seconds": round(outcome.seconds, 3),
        "notes": outcome.notes,
        "referencenet": __version__,
    }
    (folder / "job.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)  # of something without a job.json, which is no result
    folder.replace(place)
    return place


def _write_report(path: Path, jobs: Sequence[Job], results: Sequence[Result]) -> None:
    """Write what became of each job, a line each."""
    lines: list[str] = []
    for job, result in zip(jobs, results, strict=True):
        document: dict[str, object] = {"line": job.line, "state": result.state}
        if result.folder is not None:
            document["result"] = str((result.folder / job.result).relative_to(path.parent))
        if result.reason:
            document["reason"] = result.reason
        lines.append(json.dumps(document, ensure_ascii=False))
    with written_whole(path) as file:
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
