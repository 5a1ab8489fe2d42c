"""How the commands talk: progress and errors on the error output, results on the standard output.

An error is one line, whatever raised it. Wrong usage ends with status 2, a failure with status 1;
`refnet --debug` (or REFNET_DEBUG=1) shows the traceback as well.
"""

import logging
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from referencenet.telling import Notice, did_you_mean

WRONGLY_ASKED = (ValueError, TypeError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)


def tell(message: str) -> None:
    """Say something on the side: on the error output, so that results can be piped."""
    Console(stderr=True).print(message, soft_wrap=True)


def note(text: str) -> None:
    """Say what is lost or changed, or worth knowing."""
    tell(f"[yellow]note:[/] {escape(' '.join(text.split()))}")


def say(text: str) -> None:
    """Print a result on the standard output, as it is: brackets in a path are no markup."""
    Console().print(text, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def notices_told() -> Generator[None]:
    """Print what is lost or changed as one line each, once, while the block runs."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if not issubclass(category, Notice):
            usual(message, category, *place)
        elif str(message) not in told:
            told.add(str(message))
            note(str(message))

    with warnings.catch_warnings():
        usual, warnings.showwarning = warnings.showwarning, show
        warnings.simplefilter("always", Notice)
        yield


@contextmanager
def logged(is_debugging: bool) -> Generator[None]:
    """While the block runs, print what the library logs below warnings, which are told as notices; or nothing.

    Args:
        is_debugging: Whether it is printed.
    """
    if not is_debugging:
        yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    handler.addFilter(lambda record: record.levelno < logging.WARNING)
    logger = logging.getLogger("referencenet")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def is_misuse(error: Any) -> bool:
    """Whether an error is of the parser of the command line, and has words; one that shows help has none."""
    return hasattr(error, "format_message") and bool(error.format_message())


def misuse_line(error: Any) -> str:
    """What was typed wrongly, and what may have been meant, in one line.

    Args:
        error: Of the parser of the command line.
    """
    near = getattr(error, "possibilities", None)
    if near:  # an option that there is not
        return f"No such option: {error.option_name}.{did_you_mean(error.option_name, near)}"
    text = " ".join(str(error.format_message()).replace("Value error, ", "").split())
    wrong = error.__cause__ or error.__context__
    given = [repr(each["input"]) for each in wrong.errors()] if hasattr(wrong, "errors") else []
    text += f", but was {given[0]}." if given and given[0] not in text else ""
    words = re.findall(r"'([^']*)'", text.partition("': ")[2])
    meant = did_you_mean(words[0], words[1:]) if "not one of" in text and len(words) > 1 else ""
    return text + meant


def tell_misuse(error: Any) -> int:
    """Say in one line what was typed wrongly; the exit status that goes with it."""
    tell(f"[bold red]error:[/] {escape(misuse_line(error))}")
    return int(error.exit_code)


def error_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:  # of the system, which names the file last
        return f"{error.filename or 'a file'}: {error.strerror}; check the place, its space and its permissions."
    return text if isinstance(error, (*WRONGLY_ASKED, OSError)) else f"{type(error).__name__}: {text}"


def tell_error(error: Exception) -> int:
    """Say in one line what went wrong.

    Returns:
        The exit status that goes with it.
    """
    text = error_line(error)
    if not isinstance(error, (*WRONGLY_ASKED, OSError)):
        text += " (refnet --debug shows where)"
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
