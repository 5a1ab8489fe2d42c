"""Defaults of the small networks, which draw figures of about 64 pixels: size, steps, guidance and windows of films."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from referencenet.builtin.load import STEPS
from referencenet.pipelines.spec import Spec
from referencenet.sampling.windows import Windows
from referencenet.training.config import read_config
from referencenet.training.recipes.index import configuration, recipe_of

SCALES: Mapping[str, float] = MappingProxyType({"magic_animate": 2.0, "parts2whole": 4.0})
"""Guidance of small networks whose reference speaks too softly without it; others have none."""


def drawn_spec(system: str) -> Spec:
    """A system's declaration with the size, steps, guidance and windows of its small networks."""
    spec: Spec = recipe_of(system).pipeline.spec
    data = _data_of(system)
    changed: dict[str, Any] = {"size": data.size, "steps": STEPS, "scale": SCALES.get(system, 1.0)}
    if spec.windows is not None and data.frames:
        changed["windows"] = Windows(size=data.frames, overlap=0 if spec.windows.filled else data.frames // 4,
                                     filled=spec.windows.filled)  # fmt: skip
    return replace(spec, **changed, defaults="the small trainings in the drawn world")


def size_of(system: str) -> tuple[int, int]:
    """(width, height) in pixels of a system's pictures in the drawn world: those of its small training."""
    return _data_of(system).size


def _data_of(system: str) -> Any:
    """What the last stage of a system's small training reads."""
    *_, stage = recipe_of(system).stages
    return read_config(configuration(system, "paperdoll"), stage, ()).data
