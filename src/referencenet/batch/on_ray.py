"""Workers on the machines of a Ray cluster: actors, each with a GPU of its own where the cluster has any.

Weights and pictures lie under the same paths on all machines, on a shared disk or copied there. Results come back
through Ray: only the machine that started the batch writes them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from referencenet.batch.jobs import Job, check_ray
from referencenet.batch.team import Outcome, attempt
from referencenet.cli.loaded import LastModel


class Drawer:
    """Draws jobs on the machine where Ray puts it."""

    def __init__(self) -> None:
        self._models = LastModel()

    def draw(self, job: Job) -> tuple[Outcome, dict[str, bytes]]:
        """Draw a job; how that went, and the files of its result by name."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            outcome = attempt(job, folder, self._models)
            files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return outcome, files


class RayActors:
    """Actors on a Ray cluster.

    Args:
        size: How many; None: one for each GPU, or for each machine where the cluster has no GPU.
        most: More are not started.
        address: Of the cluster, as `ray.init` takes it; `local` starts one on this machine.

    Raises:
        ModuleNotFoundError: If Ray is not installed.
        ConnectionError: If there is no cluster.
    """

    def __init__(self, size: int | None, *, most: int, address: str) -> None:
        check_ray()
        self._ray: Any = import_module("ray")  # an extra
        self._ray.init(address=address, log_to_driver=False, logging_level="error", include_dashboard=False)
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        machines = sum(bool(node["Alive"]) for node in self._ray.nodes())
        self.size = min(size or gpus or machines, most)
        self._kind: Any = self._ray.remote(num_cpus=1, num_gpus=min(1.0, gpus / self.size))(Drawer)
        self._actors = [self._kind.remote() for _ in range(self.size)]
        self._drawing: dict[Any, tuple[int, Path]] = {}

    def give(self, worker: int, job: Job, folder: Path) -> None:
        """Let a worker that has nothing to do draw a job into an empty folder."""
        self._drawing[self._actors[worker].draw.remote(job)] = worker, folder

    def wait(self) -> Iterator[tuple[int, Outcome]]:
        """Wait for at least one worker; those that are done. One that died has a successor then."""
        ready, _ = self._ray.wait(list(self._drawing), num_returns=1)
        for answer in ready:
            worker, folder = self._drawing.pop(answer)
            try:
                outcome, files = self._ray.get(answer)
            except self._ray.exceptions.RayError as error:
                self._actors[worker] = self._kind.remote()
                yield worker, Outcome(reason=f"its worker ended while it was drawn: {str(error).splitlines()[0]}")
                continue
            for name, content in files.items():
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            yield worker, outcome

    def end(self) -> None:
        """Let all workers go, whatever they are doing."""
        self._ray.shutdown()
