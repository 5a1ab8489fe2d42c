"""What the layouts share: reading lists, and saying which file a layout begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}.") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a {kind.__name__}.")
    return content
