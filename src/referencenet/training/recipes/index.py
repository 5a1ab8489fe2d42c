"""The published systems' trainings: one folder each, with its recipe and its configurations.

`published.toml` has the published values, `24gb.toml` what fits one card of 24 GB, `paperdoll.toml` what runs on a data
set of the drawn world; a stage is a table in each.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from referencenet.training.config import meant

CONFIGURATIONS = ("published", "24gb", "paperdoll")
BESIDE = ("audio2lmk",)
"""Trainings of networks that stand beside a system: AniPortrait's, from speech to a face."""


def recipes() -> tuple[str, ...]:
    """Names of the systems that can be trained."""
    found = (path.name for path in Path(__file__).parent.iterdir() if (path / "recipe.py").is_file())
    return tuple(sorted(name for name in found if name not in BESIDE))


def trainings() -> tuple[str, ...]:
    """Names of all that can be trained: the systems, and what stands beside them."""
    return (*recipes(), *BESIDE)


def recipe_of(system: str) -> Any:
    """The recipe's class of a system, or of what stands beside one.

    Raises:
        ValueError: If there is none.
    """
    if system not in trainings():
        raise ValueError(f"there is no recipe for {system!r}{meant(system, trainings())}")
    return import_module(f"{__package__}.{system}.recipe").RECIPE


def configuration(system: str, name: str) -> Path:
    """The file of a shipped configuration.

    Raises:
        ValueError: If there is no such recipe or configuration.
    """
    recipe_of(system)
    if name not in CONFIGURATIONS:
        raise ValueError(f"there is no configuration {name!r}{meant(name, CONFIGURATIONS)}")
    return Path(__file__).parent / system / f"{name}.toml"
