"""A system's pipeline, called from several threads: one call after the other, or a refusal by name.

A call changes its pipeline (what callbacks see and set), its scheduler, and the networks that are linked, hooked or
told something for its length. So it takes a turn at all of these, before it looks at its arguments. Text encoders,
image encoders and autoencoders only compute, unless offloading moves them about: pipelines that share no more than
these run side by side.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from diffusers import AutoencoderKL
from torch import nn
from transformers import PreTrainedModel

from referencenet.links.turns import turn

Method = TypeVar("Method", bound=Callable[..., Any])

COMPUTES_ONLY = (PreTrainedModel, AutoencoderKL)
"""Kinds of networks that calls leave as they are."""


def in_turn(method: Method) -> Method:
    """Let a pipeline's method take its turn; the argument `busy` says what happens while another thread has it.

    A generator has its turn from its first frame to its last, or until it is closed.
    """

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with turn(changed_parts(self), kwargs.get("busy", "refuse")):
            return method(self, *args, **kwargs)

    @wraps(method)
    def stream(self: Any, *args: Any, **kwargs: Any) -> Any:
        with turn(changed_parts(self), kwargs.get("busy", "refuse")):
            yield from method(self, *args, **kwargs)

    return stream if inspect.isgeneratorfunction(method) else call  # pyright: ignore[reportReturnType]


def changed_parts(pipe: Any) -> list[Any]:
    """What a call of a pipeline changes for its length: the pipeline itself, its scheduler and networks."""
    networks = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    changed = [part for part in networks if not isinstance(part, COMPUTES_ONLY) or hasattr(part, "_hf_hook")]
    return [pipe, pipe.scheduler, *changed]
