"""The server of the page: its folders, its limits, and its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from referencenet.cli.console import error_line
from referencenet.telling import Notice
from referencenet.ui.app import CSS, THEME, page
from referencenet.ui.examples import write_examples
from referencenet.ui.given import Limits
from referencenet.ui.jobs import Desk, told
from referencenet.ui.models import Models
from referencenet.ui.office import Office
from referencenet.ui.runs import Runs

LOCAL = ("127.0.0.1", "localhost", "::1")
PATIENCE = 60.0
"""Seconds that a step may take to end when the page is closed."""

POLICY = "; ".join((
    "default-src 'self' data: blob:", "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
    "style-src 'self' 'unsafe-inline'", "worker-src 'self' blob:", "connect-src 'self' data: blob:",
))  # fmt: skip
"""The page loads nothing from another host."""


class SelfContained:
    """Tells browsers that the page needs no other host."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, with the policy among the headers."""

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, sent if scope["type"] == "http" else send)


@contextmanager
def served(
    models: Models, out: Path, limits: Limits, *, host: str = "127.0.0.1", port: int | None = None
) -> Generator[str]:
    """Serve the page while the block runs; behind it, jobs are cancelled and private files taken away.

    Args:
        models: It offers.
        out: Folder of the results.
        limits: Of what it takes.
        host: The address that it listens at.
        port: None: a free one from 7860.

    Yields:
        The page's address.

    Raises:
        OSError: If the port is taken, or the folder cannot be written to.
        ValueError: If another page writes there.
    """
    private = Path(tempfile.mkdtemp(prefix="refnet-ui-"))  # nobody else's: mode 0700
    desk, runs = Desk(limits.waiting), None
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(private / "uploads")
    has_ended, blocks = True, None
    try:
        runs = Runs(out)
        office = Office(models, desk, runs, limits, lambda error: sentence(error, private))
        blocks = page(office, write_examples(private / "examples"))
        blocks.queue(max_size=None, default_concurrency_limit=None)
        guards = [Middleware(SelfContained)]
        if host in LOCAL:  # other names that lead here are a trap for browsers
            guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL, "[::1]"]))
        with notices_told():
            _, address, _ = blocks.launch(
                server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, inbrowser=False,
                allowed_paths=[str(runs.folder)], max_file_size=f"{limits.megabytes}mb", footer_links=["settings"],
                show_error=True, ssr_mode=False, run_history=False, mcp_server=False, pwa=False, css=CSS, theme=THEME,
                app_kwargs={"middleware": guards, "docs_url": None, "redoc_url": None}, enable_monitoring=False,
            )  # fmt: skip
            yield address
    finally:
        has_ended = desk.close(PATIENCE)
        if blocks is not None:
            blocks.close(verbose=False)
        if runs is not None:
            runs.close()
        shutil.rmtree(private, ignore_errors=True)
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before
        if not has_ended:
            os._exit(1)  # a step that does not end holds the process; nothing of it is on the disk


@contextmanager
def closing_signals() -> Generator[threading.Event]:
    """An event that SIGINT (Ctrl-C) and SIGTERM set while the block runs, in place of what they do otherwise."""
    closing = threading.Event()
    before = {number: signal.signal(number, lambda *_: closing.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield closing
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def sentence(error: BaseException, private: Path) -> str:
    """An error as one plain sentence, as the command line says it, without the page's private folders."""
    return re.sub(rf"{re.escape(str(private))}/(?:[^\s'\"]*/)?", "", error_line(error))


@contextmanager
def notices_told() -> Generator[None]:
    """Note what is lost or changed at the job of the thread in which it happens, while the block runs."""

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if not (issubclass(category, Notice) and told(str(message))):
            usual(message, category, *place)

    with warnings.catch_warnings():
        usual, warnings.showwarning = warnings.showwarning, show
        warnings.simplefilter("always", Notice)
        yield
