"""The built-in model: its weights lie in this package."""

from referencenet.builtin.load import load, load_observer
from referencenet.builtin.start import load_system, start_pipeline

__all__ = ["load", "load_observer", "load_system", "start_pipeline"]
