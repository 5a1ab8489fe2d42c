"""The built-in model: its weights lie in this package."""

from referencenet.builtin.load import load, load_observer

__all__ = ["load", "load_observer"]
