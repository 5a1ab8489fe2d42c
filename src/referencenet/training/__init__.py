"""Training: recipes, the loop they share, and what it is made of; nothing here knows which model learns."""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from referencenet.later import front_door

if TYPE_CHECKING:  # a line for each public name; everybody else goes by `__getattr__`
    from referencenet.training.config import OptimizerConfig as OptimizerConfig
    from referencenet.training.config import RunConfig as RunConfig
    from referencenet.training.config import read_config as read_config
    from referencenet.training.loop import fit as fit
    from referencenet.training.recipe import Recipe as Recipe

_public = front_door(
    __name__, {"config": ("OptimizerConfig", "RunConfig", "read_config"), "loop": ("fit",), "recipe": ("Recipe",)}
)

__all__ = ["OptimizerConfig", "Recipe", "RunConfig", "fit", "read_config"]

_MOVED = {"SCHEDULES", "STAGES", "Settings", "benchmark_builtin", "export", "train"}


def __getattr__(name: str) -> Any:
    """A public name; or what moved to the built-in model's folder, for one release more."""
    if name not in _MOVED:
        return _public(name)
    home = "referencenet.builtin.training"
    warnings.warn(f"{__name__}.{name} is now {home}.{name}; import it from there.", DeprecationWarning, stacklevel=2)
    return getattr(import_module(home), name)
