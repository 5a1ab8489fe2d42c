"""Scripts of examples/, which lie in no package."""

from __future__ import annotations

import importlib.util
from typing import Any

from house.source import ROOT


def example(name: str) -> Any:
    """The module of an example, by its file's name."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
