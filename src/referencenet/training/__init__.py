"""Training: recipes, the loop they share, and what it is made of; nothing here knows which model learns."""

import warnings
from importlib import import_module
from typing import Any

from referencenet.training.config import OptimizerConfig, RunConfig, read_config
from referencenet.training.loop import fit
from referencenet.training.recipe import Recipe

__all__ = ["OptimizerConfig", "Recipe", "RunConfig", "fit", "read_config"]

_MOVED = {"SCHEDULES", "STAGES", "Settings", "benchmark_builtin", "export", "train"}


def __getattr__(name: str) -> Any:
    """Give what moved to the built-in model's folder, for one release more."""
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    home = "referencenet.builtin.training"
    warnings.warn(f"{__name__}.{name} is now {home}.{name}; import it from there.", DeprecationWarning, stacklevel=2)
    return getattr(import_module(home), name)
