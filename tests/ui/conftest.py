"""The page as its command serves it, in a process of its own, where gradio is installed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PATIENCE = int(os.environ.get("REFNET_BROWSER_PATIENCE", "60"))
"""Seconds that a browser waits for what the page does; a busy machine needs more."""
LIMITS = ("--max-megabytes=1", "--max-megapixels=1", "--max-seconds=5", "--max-waiting=32")


@dataclass(frozen=True)
class Page:
    """A page that is being served.

    Attributes:
        process: Of `refnet ui`.
        address: It listens at.
        out: Folder of its results.
        private: Where it keeps what is uploaded.
    """

    process: subprocess.Popen[str]
    address: str
    out: Path
    private: Path

    @classmethod
    def served(cls, folder: Path) -> Page:
        """Start the command, and wait until it says its address."""
        pytest.importorskip("gradio", reason="gradio is not installed (extra `ui`)")
        out, private = folder / "out", folder / "private"
        private.mkdir()
        typed = [sys.executable, "-m", "referencenet", "ui", "--no-browser", "--device=cpu", f"--out={out}", *LIMITS]
        process = subprocess.Popen(
            typed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(private)}
        )  # fmt: skip
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 3 * PATIENCE)
        line = process.stdout.readline() if ready else ""
        if not line.startswith("http"):
            process.kill()
            raise AssertionError(f"refnet ui said {line!r} and {process.communicate()[1]!r}")
        return cls(process, line.split()[0], out, private)

    @property
    def results(self) -> list[str]:
        """What lies in the folder, unfinished results too."""
        return sorted(path.name for path in self.out.iterdir() if path.name != ".results.lock")

    def close(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal, and wait for the end: the exit status, and what was said on the error output."""
        self.process.send_signal(number)
        said = self.process.communicate(timeout=2 * PATIENCE)[1]
        return self.process.returncode, said


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page for all tests of a process."""
    page = Page.served(tmp_path_factory.mktemp("page"))
    yield page
    status, said = page.close()
    assert status == 0, said
    assert not list(page.private.glob("refnet-ui-*"))
