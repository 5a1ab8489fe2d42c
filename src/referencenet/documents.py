"""Small files that people hand over, JSON and arrays: read with bounds, and nothing else than what was expected.

They may come from anybody. Sizes that a file claims are compared with the file, and with a bound, before memory is
taken; whatever a decoder says of damage becomes one line that names the file.
"""

from __future__ import annotations

import json
import math
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

MAX_TEXT = 256 * 2**20  # bytes: key points of an hour of film
MAX_NUMBERS = 2**26  # in one file: a face's landmarks for 26 minutes


def read_json(path: str | Path, expected: str) -> Any:
    """Read a JSON file.

    Args:
        path: Of the file.
        expected: What it should hold, for errors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is too large, no text, or no JSON.
    """
    path = checked_file(path, expected)
    if path.stat().st_size > MAX_TEXT:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, at most {MAX_TEXT} are read; expected {expected}.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({_first_line(error)}); expected {expected}.") from error


def read_array(path: str | Path, expected: str) -> np.ndarray:
    """Read the numbers of an .npy file.

    Args:
        path: Of the file.
        expected: What it should hold, for errors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none, is cut short, is too large, or holds something else than numbers.
    """
    path = checked_file(path, expected)
    try:
        with path.open("rb") as file:
            _check_header(file, path.stat().st_size, MAX_NUMBERS)
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # a damaged file fails in every way there is
        raise ValueError(f"{path} is no array ({_first_line(error)}); expected {expected}.") from error


def mapped_array(path: str | Path, expected: str) -> np.ndarray:
    """The numbers of an .npy file of any size, which stay on the disk until they are asked for; see `read_array`."""
    path = checked_file(path, expected)
    try:
        with path.open("rb") as file:
            _check_header(file, path.stat().st_size, sys.maxsize)
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except Exception as error:  # a damaged file fails in every way there is
        raise ValueError(f"{path} is no array ({_first_line(error)}); expected {expected}.") from error


def read_arrays(path: str | Path, names: Iterable[str], expected: str) -> dict[str, np.ndarray]:
    """Read the numbers of an .npz file that go by some names; others are left alone.

    Args:
        path: Of the file.
        names: Of the arrays; those that it lacks are left out.
        expected: What it should hold, for errors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none, is cut short, is too large, or holds something else than numbers under a name.
    """
    path = checked_file(path, expected)
    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            left = MAX_NUMBERS
            for name in names:
                if (member := members.get(f"{name}.npy")) is None:
                    continue
                with archive.open(member) as file:
                    left -= _check_header(file, member.file_size, left)
                with archive.open(member) as file:
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # a damaged file fails in every way there is
        raise ValueError(f"{path} is no archive of arrays ({_first_line(error)}); expected {expected}.") from error
    return found


def as_numbers(given: Any, name: str) -> np.ndarray:
    """Numbers of a document, or an array, as float64; words, truth values and gaps are no numbers.

    Args:
        given: A number, nested lists of them, or an array.
        name: What they are called in an error.

    Raises:
        ValueError: If they are something else, or lists differ in length.
    """
    try:
        found = np.asarray(given)
    except ValueError as error:
        raise ValueError(f"{name} has lists of different lengths; expected numbers in rows of one length.") from error
    if found.dtype.kind not in "fiu":
        raise ValueError(f"{name} is {_shown(given)}; expected numbers.")
    return found.astype(np.float64, copy=False)


def checked_file(path: str | Path, expected: str) -> Path:
    """The path of a plain file.

    Args:
        path: Of the file.
        expected: What it should hold, for errors.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(path)
    if not path.is_file():
        what = "is no plain file" if path.exists() else "is not there"
        raise FileNotFoundError(f"{path} {what}; expected {expected}.")
    return path


def _check_header(file: Any, size: int, most: int) -> int:
    """Make sure that an array is one of numbers that its file has room for; how many.

    Args:
        file: At its beginning.
        size: Of the file in bytes.
        most: Numbers that it may hold.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"of version {version}, whose fields are no plain numbers")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    count = math.prod(shape)
    if dtype.kind not in "fiu":
        raise ValueError(f"of {dtype}, not of numbers")
    if count > most:
        raise ValueError(f"it claims {count} numbers, at most {most} are read")
    if count * dtype.itemsize > size - file.tell() or min(shape, default=1) < 0:
        raise ValueError(f"it claims shape {shape} and is cut short")
    return count


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _shown(given: Any) -> str:
    """The beginning of a value."""
    text = repr(given) if isinstance(given, str | bool | int | None | float) else f"a {type(given).__name__}"
    return text if len(text) < 60 else f"{text[:60]}..."
