"""How the commands talk: progress and errors on the error output, results on the standard output.

An error is one line, whatever raised it. What was asked for wrongly ends with status 2, what went wrong with status 1;
`refnet --debug` (or REFNET_DEBUG=1) shows the traceback as well.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

WRONGLY_ASKED = (ValueError, TypeError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)


def tell(message: str) -> None:
    """Say something on the side: on the error output, so that results can be piped."""
    Console(stderr=True).print(message, soft_wrap=True)


def tell_error(error: Exception) -> int:
    """Say in one line what went wrong.

    Returns:
        The exit status that goes with it.
    """
    if hasattr(error, "format_message"):  # what was typed is no use of the command
        typed: Any = error
        text = " ".join(typed.format_message().split()).rstrip(".")
        how = f" ({typed.ctx.command_path} --help)" if getattr(typed, "ctx", None) is not None else ""
        tell(f"[bold red]error:[/] {escape(text + how)}")
        return 2
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, (*WRONGLY_ASKED, OSError)):
        text = f"{type(error).__name__}: {text} (refnet --debug shows where)"
    tell(f"[bold red]error:[/] {escape(text)}")
    return 2 if isinstance(error, WRONGLY_ASKED) else 1


@contextmanager
def progress_bar(what: str, total: int) -> Generator[tuple[Progress, Any]]:
    """Show a progress bar on the error output while the block runs.

    Args:
        what: Is done.
        total: Steps.

    Yields:
        The bar and its task, for `bar.advance(task)`.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        yield bar, bar.add_task(what, total=total)
