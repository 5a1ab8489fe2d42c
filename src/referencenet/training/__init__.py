"""Training: recipes, the loop they share, and the measurements."""

from referencenet.training.benchmark import benchmark_builtin
from referencenet.training.builtin import SCHEDULES, STAGES, Settings, export, train
from referencenet.training.trainer import Recipe, Schedule, fit

__all__ = ["SCHEDULES", "STAGES", "Recipe", "Schedule", "Settings", "benchmark_builtin", "export", "fit", "train"]
