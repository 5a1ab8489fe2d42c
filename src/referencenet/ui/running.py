"""What a tab's button does: an order, its place in line, its progress, and its result or one sentence."""

from __future__ import annotations

import asyncio
import html
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from referencenet.ui.jobs import Cancelled, Desk, Job
from referencenet.ui.models import TabName
from referencenet.ui.office import FILMS, Office

LOOK = 0.2  # seconds between two looks at a job
REMEMBERED = 200
"""Results that a browser remembers."""


@dataclass(eq=False)
class Drawing:
    """What a visitor has asked a tab for, from the click on; it may be cancelled before its job is there."""

    job: Job | None = None
    is_cancelled: bool = False

    def begun(self, job: Job) -> None:
        """It has become a job."""
        self.job = job
        if self.is_cancelled:
            job.cancel()

    def cancel(self) -> None:
        """End it."""
        self.is_cancelled = True
        if self.job is not None:
            self.job.cancel()


@dataclass
class Drawings:
    """What is being drawn in a tab, by visitor."""

    _of: dict[str | None, Drawing] = field(default_factory=dict[str | None, Drawing])

    @contextmanager
    def asked_by(self, visitor: str | None) -> Generator[Drawing]:
        """What a visitor has asked for, until it has ended; whoever leaves the block early waits for nothing."""
        self._of[visitor] = drawing = Drawing()
        try:
            yield drawing
        finally:
            drawing.cancel()
            if self._of.get(visitor) is drawing:
                del self._of[visitor]

    def cancel(self, request: gr.Request) -> Any:
        """What the button does: the job itself says that it was cancelled, so that nothing is said after it.

        Returns:
            The status, where there is nothing to cancel.
        """
        drawing = self._of.get(request.session_hash)
        if drawing is None:
            return said("nothing is being drawn.", "note")
        drawing.cancel()
        return gr.skip()


def runner(
    office: Office, tab: TabName, names: Sequence[str], drawings: Drawings
) -> Callable[..., AsyncGenerator[tuple[Any, ...]]]:
    """What a tab's button does.

    Args:
        office: Shared.
        tab: Which.
        names: Of the values that it is called with.
        drawings: Of this tab; each is there until it has ended.

    Returns:
        A generator of (status, result, settings, name of the run).
    """

    async def run(request: gr.Request, *values: Any) -> AsyncGenerator[tuple[Any, ...]]:
        with drawings.asked_by(request.session_hash) as drawing:
            async for now in draw(drawing, dict(zip(names, values, strict=True))):
                yield now

    async def draw(drawing: Drawing, values: dict[str, Any]) -> AsyncGenerator[tuple[Any, ...]]:
        none = (gr.skip(),) * 3
        try:
            job = await asyncio.to_thread(office.begin, tab, values)
        except Exception as error:
            sentence = office.sentence(error)
            yield said(sentence, "error"), *none
            raise gr.Error(sentence, visible=False, print_exception=False) from error
        drawing.begun(job)
        shown = ""
        try:
            while not job.future.done():
                if (now := progress_of(office.desk, job)) != shown:
                    shown = now
                    yield now, *none
                await asyncio.sleep(LOOK)
            run = job.future.result()
        except (Cancelled, CancelledError) as error:
            yield said("cancelled; nothing was kept.", "note"), *none
            raise gr.Error("cancelled; nothing was kept.", visible=False, print_exception=False) from error
        except Exception as error:
            sentence = office.sentence(error)
            yield said(sentence, "error"), *none
            raise gr.Error(sentence, visible=False, print_exception=False) from error
        files = [str(path) for path in run.files]
        yield said(" ".join(job.notes) or "done.", "note"), files[0] if tab in FILMS else files, run.settings, run.name

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in ("request", *names)]
    vars(run)["__signature__"] = inspect.Signature(parameters)  # for the API
    run.__annotations__ = {"request": gr.Request}  # gradio gives it by its kind
    return run


def progress_of(desk: Desk, job: Job) -> str:
    """Where a job is, as HTML."""
    ahead = desk.ahead_of(job)
    if ahead and not job.runs:
        return said(f"in line: {ahead} before you.", "note")
    if not job.steps:
        return bar("the model is being loaded", None)
    return bar(f"step {job.step} of {job.steps}", job.step / job.steps)


def bar(text: str, share: float | None) -> str:
    """A progress bar as HTML; None: nobody knows how far it is."""
    width = "100%" if share is None else f"{share:.1%}"
    kind = "bar waiting" if share is None else "bar"
    drawn = f'<div class="{kind}"><i style="width:{width}"></i></div>'
    return f'<div class="status" role="status">{html.escape(text)}{drawn}</div>'


def said(text: str, kind: str) -> str:
    """A sentence as HTML; `kind` is error or note."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="status {kind}" role="{role}">{html.escape(text)}</div>'


def remember(name: str, names: Sequence[str] | None) -> list[str]:
    """The browser's list of its results, the newest first."""
    return [name, *(other for other in names or [] if other != name)][:REMEMBERED]
