"""Where commands get their models from: they load them, or are given one that is loaded already.

A command asks `loaded` for its model. Alone it loads it. A batch runs many commands in one process: there `models_from`
lends them the model of the job before, or stops a job that is only checked at the point where it would load.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol


class Models(Protocol):
    """Gives models."""

    def __call__(self, source: str, load: Callable[[], Any]) -> Any:
        """The model of a source; `load` loads it."""
        ...


_MODELS: ContextVar[Models | None] = ContextVar("models", default=None)


def loaded(source: tuple[Any, ...], load: Callable[[], Any]) -> Any:
    """A model, ready where it computes.

    Args:
        source: Everything that decides what is loaded, where to, and how.
        load: Loads it.
    """
    models = _MODELS.get()
    return load() if models is None else models(repr(source), load)


@contextmanager
def models_from(models: Models) -> Generator[None]:
    """Let commands get their models from somewhere else while the block runs.

    Args:
        models: Gives them.
    """
    token = _MODELS.set(models)
    try:
        yield
    finally:
        _MODELS.reset(token)


class LastModel:
    """Keeps the model that was asked for last, and lets go of it before another is loaded."""

    def __init__(self) -> None:
        self.source = ""
        self._model: Any = None

    def __call__(self, source: str, load: Callable[[], Any]) -> Any:
        """The model of a source."""
        if source != self.source or self._model is None:
            self._model, self.source = None, ""
            self._model, self.source = load(), source
        return self._model


class ModelNeeded(Exception):
    """A command has come to the point where it needs its model: all that it checks before is right.

    Attributes:
        source: Of the model.
    """

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.source = source


def no_model(source: str, _load: Callable[[], Any]) -> Any:
    """Stop the command."""
    raise ModelNeeded(source)
