"""The built-in model's own training: its stages one by one, what teaches each, and the measurements."""

from referencenet.builtin.training.benchmark import benchmark_builtin
from referencenet.builtin.training.stages import SCHEDULES, STAGES, Settings, export, train

__all__ = ["SCHEDULES", "STAGES", "Settings", "benchmark_builtin", "export", "train"]
