"""What the layouts share: reading lists, and saying which file a layout begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from referencenet.inputs import read_json as bounded_json


def first_file(root: Path, names: list[str], layout: str) -> Path:
    """The first of these files that is there.

    Raises:
        FileNotFoundError: If none is: the folder is of another layout.
    """
    for name in names:
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"{root} is no {layout} data set: it has no {' nor '.join(names)}.")


def read_json(path: Path, kind: type) -> Any:
    """A JSON file that holds a list or an object.

    Raises:
        ValueError: If it holds something else.
    """
    content = bounded_json(path, f"a {kind.__name__}")
    if not isinstance(content, kind):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a {kind.__name__}.")
    return content
