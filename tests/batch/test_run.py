"""A batch loses nothing and draws nothing twice, whatever happens to its workers."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from commands import told
from referencenet.batch.jobs import read_jobs
from referencenet.batch.on_ray import RayActors
from referencenet.batch.run import Waiting, run_batch
from referencenet.batch.team import Processes, attempt
from referencenet.cli.app import app
from referencenet.cli.loaded import LastModel


class Here:
    """One worker, in this process."""

    size = 1

    def __init__(self) -> None:
        self.models = LastModel()
        self.drawn: list[str] = []

    def give(self, worker: int, job: Any, folder: Path) -> None:
        assert worker == 0
        self.job, self.folder = job, folder

    def wait(self) -> Any:
        self.drawn.append(self.job.address)
        yield 0, attempt(self.job, self.folder, self.models)

    def end(self) -> None:
        pass


def never(_: int) -> Any:
    raise AssertionError("there is nothing to draw")


def report(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "batch.jsonl").read_text().splitlines()]


def test_results_are_drawn_once_and_a_rerun_starts_no_worker(job, written, tmp_path):
    jobs = read_jobs(written(job(), job(seed=2), job()))
    here, out = Here(), tmp_path / "out"
    results = run_batch(jobs, out, lambda _: here)
    assert [result.state for result in results] == ["drawn"] * 3
    assert len(here.drawn) == 2, "equal jobs share a result"
    assert results[0].folder == results[2].folder
    assert sorted(path.name for path in results[0].folder.iterdir()) == [
        "job.json", "seed-1.png", "settings.json", "sheet.png",
    ]  # fmt: skip
    assert report(out)[1] == {"line": 2, "state": "drawn", "result": f"results/{jobs[1].address}"}
    assert not (out / ".work").exists()
    document = json.loads((results[0].folder / "job.json").read_text())
    assert document["job"] == {**job(), "command": "generate"}

    again = run_batch(jobs, out, never)
    assert [result.state for result in again] == ["kept"] * 3
    more = run_batch(read_jobs(written(job(seed=3), job(seed=2))), out, lambda _: Here())
    assert [result.state for result in more] == ["drawn", "kept"]


def test_a_job_that_fails_is_tried_twice_and_listed_and_the_others_go_on(job, written, materials, tmp_path):
    shutil.copytree(materials / "model", tmp_path / "broken")
    weights = tmp_path / "broken" / "unet" / "diffusion_pytorch_model.safetensors"
    jobs = read_jobs(written(job(model=str(tmp_path / "broken")), job(seed=2)))
    weights.write_bytes(weights.read_bytes()[:1000])  # after the check, which does not load weights
    here, out = Here(), tmp_path / "out"
    failed, drawn = run_batch(jobs, out, lambda _: here)
    assert (failed.state, drawn.state) == ("failed", "drawn")
    assert Counter(here.drawn) == {jobs[0].address: 2, jobs[1].address: 1}
    assert "diffusion_pytorch_model.safetensors" in failed.reason
    assert report(out)[0] == {"line": 1, "state": "failed", "reason": failed.reason}
    assert [path.name for path in (out / "results").iterdir()] == [jobs[1].address]


def test_what_an_interrupted_batch_has_drawn_is_kept(job, written, tmp_path):
    jobs = read_jobs(written(*[job(seed=seed) for seed in range(3)]))
    out = tmp_path / "out"

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(jobs, out, lambda _: Here(), done=interrupt)
    assert [line["state"] for line in report(out)] == ["drawn", "not drawn", "not drawn"]
    (out / ".work" / "0").mkdir(parents=True)  # of one that was killed
    (out / ".work" / "0" / "seed-1.png").write_bytes(b"half")
    here = Here()
    states = [result.state for result in run_batch(jobs, out, lambda _: here)]
    assert states == ["kept", "drawn", "drawn"]
    assert not (out / ".work").exists()


def test_workers_stay_with_their_models(job, written):
    jobs = read_jobs(written(*[job(seed=seed, dtype=dtype) for seed in range(3) for dtype in ("float32", "bfloat16")]))
    waiting = Waiting(jobs)
    taken = [waiting.take(worker) for worker in (0, 1, 1, 0, 1, 0)]
    assert waiting.take(0) is None
    by_worker = [{job.model for job in taken[i::2]} for i in range(2)]
    assert {job.address for job in taken} == {job.address for job in jobs}
    first, second = ({taken[i].model for i in places} for places in ((0, 3, 5), (1, 2, 4)))
    assert len(first) == len(second) == 1, by_worker
    assert first != second


def test_a_second_batch_in_the_folder_is_refused(job, written, tmp_path):
    jobs, out = read_jobs(written(job())), tmp_path / "out"

    def second(_: Any) -> None:
        with pytest.raises(ValueError, match="another process is writing"):
            run_batch(jobs, out, never)

    assert run_batch(jobs, out, lambda _: Here(), done=second)[0].state == "drawn"


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """Run `refnet batch`."""
    monkeypatch.setenv("COLUMNS", "300")
    return lambda *arguments: CliRunner().invoke(app, ["batch", *map(str, arguments), "--out", str(tmp_path / "out")])


def test_the_command_says_what_is_wrong_and_what_is_there(job, written, typed, tmp_path):
    wrong = typed(written(job(link="x"), job(), job(steps=0)))
    assert wrong.exit_code == 2
    assert "error: line 1: " in told(wrong)
    assert "error: line 3: " in told(wrong)
    assert not (tmp_path / "out").exists()
    file = written(job(), job(seed=2))
    run_batch(read_jobs(file), tmp_path / "out", lambda _: Here())
    kept = typed(file)
    assert kept.exit_code == 0, kept.output
    assert "2 jobs: 2 kept" in told(kept)


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_the_command_says_how_to_get_it(job, written, typed):
    assert 'pip install "referencenet[ray]"' in told(typed(written(job()), "--ray", "local"))


@pytest.mark.slow
def test_the_command_draws_in_processes_and_lists_what_failed(job, written, typed, materials, tmp_path):
    shutil.copytree(materials / "model", tmp_path / "broken")
    (tmp_path / "broken" / "unet" / "config.json").write_text("{}")
    result = typed(written(job(), job(seed=2), job(model=str(tmp_path / "broken"))), "--workers", "2")
    assert result.exit_code == 1
    assert "failed: line 3: " in told(result)
    assert "3 jobs: 2 drawn, 1 failed" in told(result)


def deaths(team: Any) -> int:
    """End a process that draws, and say how many there are."""
    if isinstance(team, Processes):
        pids = [process.pid for process in multiprocessing.active_children()]
    else:
        children = psutil.Process().children(recursive=True)
        pids = [child.pid for child in children if "ray::Drawer" in " ".join(child.cmdline())]
    os.kill(pids[0], signal.SIGKILL)
    return len(pids)


TEAMS = {
    "processes": lambda most: Processes(2, most=most),
    "ray": lambda most: RayActors(2, most=most, address="local"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "many"), [("processes", 1000), ("ray", 200)], ids=TEAMS)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")  # ray's own
def test_many_jobs_and_a_worker_killed_in_the_middle(kind, many, job, written, tmp_path):
    if kind == "ray" and find_spec("ray") is None:
        pytest.skip("ray is not installed")
    jobs = read_jobs(written(*[job(seed=seed, reference=[f"p{seed % 3}.png"]) for seed in range(many)]))
    assert len({job.address for job in jobs}) == many
    out, teams, ended = tmp_path / "out", [], 0

    def team(most: int) -> Any:
        teams.append(TEAMS[kind](most))
        return teams[0]

    def done(_: Any) -> None:
        nonlocal ended
        ended += 1
        if ended == many // 2:
            assert deaths(teams[0]) == 2

    results = run_batch(jobs, out, team, done=done)
    assert Counter(result.state for result in results) == {"drawn": many}
    assert sum(result.attempts for result in results) == many + 1, "only the job of the killed worker was drawn again"
    assert {path.name for path in (out / "results").iterdir()} == {job.address for job in jobs}
    for job_, result in zip(jobs, results, strict=True):
        assert (result.folder / f"seed-{job_.settings['seed']}.png").is_file()
    assert [line["line"] for line in report(out)] == list(range(1, many + 1))
    assert {result.state for result in run_batch(jobs, out, never)} == {"kept"}


@pytest.mark.slow
def test_a_job_that_ends_its_worker_twice_is_listed_with_the_signal(job, written, tmp_path):
    jobs = read_jobs(written(job(), job(seed=2)))
    teams: list[Processes] = []

    class Killed(Processes):
        def give(self, worker: int, job: Any, folder: Path) -> None:
            super().give(worker, job, folder)
            if job.address == jobs[0].address:
                os.kill(self._begun[worker][0].pid or 0, signal.SIGKILL)

    def team(most: int) -> Processes:
        teams.append(Killed(1, most=most))
        return teams[0]

    failed, drawn = run_batch(jobs, tmp_path / "out", team)
    assert (failed.state, failed.attempts, drawn.state) == ("failed", 2, "drawn")
    assert "signal 9" in failed.reason
    assert not multiprocessing.active_children()
