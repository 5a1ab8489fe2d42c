"""What is said to people beside errors: what is lost on the way, and which word they may have meant.

What is lost or changed is a `Notice`, a Python warning, for whoever made the call; and the same sentence goes to the
`logging` logger `referencenet`, for whoever runs a service. What was done (weights loaded, references written, calls)
is only logged, as INFO and DEBUG, by loggers below it. They are silent until a program sets logging up.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from difflib import get_close_matches

logger = logging.getLogger("referencenet")


class Notice(UserWarning):
    """Something of what was given is lost or changed on the way; `refnet` prints it as one line."""


def note(text: str) -> None:
    """Warn of what is lost or changed, and log it."""
    logger.warning(text, stacklevel=2)
    warnings.warn(text, Notice, stacklevel=3)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word that may have been meant; None if none is near."""
    return next(iter(get_close_matches(word, list(words), n=1)), None)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A question that names the nearest of some words, to stand behind an error; empty if none is near."""
    near = nearest(word, words)
    return f" Did you mean {near!r}?" if near is not None else ""


def some(keys: Iterable[str], limit: int = 10) -> str:
    """At most `limit` sorted names, then a count."""
    ordered = sorted(keys)
    return ", ".join(ordered[:limit]) + (f" and {len(ordered) - limit} more" if len(ordered) > limit else "")
