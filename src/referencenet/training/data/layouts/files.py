"""What the layouts share: reading lists with bounds, and saying which file a layout begins with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from referencenet.inputs import read_json as bounded_json
from referencenet.inputs import read_json_lines, read_text
from referencenet.training.data.sample import Place


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


def read_rows(path: Path, kinds: Mapping[str, type], further: Mapping[str, type]) -> list[dict[str, Any]]:
    """The entries of a list: of a JSON file, or one on each line of a .jsonl file.

    Args:
        path: Of the list.
        kinds: Fields that every entry has: `str`, `list`, or `dict` of names to words.
        further: Fields that it may have.

    Raises:
        ValueError: If an entry is of another kind; names it.
    """
    if path.suffix == ".jsonl":
        entries = [(f"line {number} of {path}", row) for number, row in read_json_lines(path, "a data set's entry")]
    else:
        entries = [(f"entry {number} of {path}", row) for number, row in enumerate(read_json(path, list), 1)]
    for where, row in entries:
        if not isinstance(row, dict):
            raise ValueError(f"{where} is a {type(row).__name__}; expected an object with {', '.join(kinds)}.")
        for name, kind in (*kinds.items(), *further.items()):
            if row.get(name) is None and name in kinds:
                raise ValueError(f"{where} has no {name!r}; expected {', '.join(kinds)}.")
            if row.get(name) is not None and not _is_of(row[name], kind):
                raise ValueError(f"{where} has {name!r} = {str(row[name])[:60]!r}; expected {WORDS[kind]}.")
    return [row for _, row in entries]


WORDS = {str: "words", list: "a list", dict: "names with words"}
"""Kinds of fields, for errors."""


def _is_of(value: Any, kind: type) -> bool:
    """Whether a field is of a kind; objects hold words alone."""
    return isinstance(value, kind) and (kind is not dict or all(isinstance(word, str) for word in value.values()))


def read_names(path: Path) -> list[str]:
    """The lines of a list, without empty ones and blanks around them.

    Raises:
        ValueError: If it is no text, or too large.
    """
    return [line.strip() for line in read_text(path, "a list of names").splitlines() if line.strip()]


def face_place(shares: Any, where: Path | str) -> Place:
    """Where a face is: left, top, right and bottom as shares of a picture's sides.

    Args:
        shares: As a file says it.
        where: The file, for errors.

    Raises:
        ValueError: If it is something else.
    """
    try:
        left, top, right, bottom = map(float, shares)
    except (TypeError, ValueError):
        left = top = right = bottom = 0.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"{where} has the face at {shares}; expected left, top, right, bottom as shares of the sides.")
    return left, top, right, bottom
