"""What a tab's button does: an order, its place in line, its progress, and its result or one sentence."""

from __future__ import annotations

import asyncio
import html
import inspect
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any

import gradio as gr

from referencenet.ui.jobs import Cancelled, Desk, Job
from referencenet.ui.models import TabName
from referencenet.ui.office import FILMS, Office

LOOK = 0.2  # seconds between two looks at a job
REMEMBERED = 200
"""Results that a browser remembers."""


def runner(office: Office, tab: TabName, names: Sequence[str]) -> Callable[..., AsyncGenerator[tuple[Any, ...]]]:
    """What a tab's button does.

    Args:
        office: Shared.
        tab: Which.
        names: Of the values that it is called with.

    Returns:
        A generator of (status, result, settings, name of the run).
    """

    async def run(*values: Any) -> AsyncGenerator[tuple[Any, ...]]:
        none = (gr.skip(),) * 3
        try:
            job = await asyncio.to_thread(office.begin, tab, dict(zip(names, values, strict=True)))
        except Exception as error:
            sentence = office.sentence(error)
            yield said(sentence, "error"), *none
            raise gr.Error(sentence, visible=False, print_exception=False) from error
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
        finally:
            job.cancel()  # whoever has left waits for nothing
        files = [str(path) for path in run.files]
        yield said(" ".join(job.notes) or "done.", "note"), files[0] if tab in FILMS else files, run.settings, run.name

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    vars(run)["__signature__"] = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # for the API
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
