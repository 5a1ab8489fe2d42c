"""Files that somebody hands over, opened with bounds: what is there is looked at before it is read or believed.

Every reader of the library asks `regular_file` first, so that a pipe does not hang, a folder is not opened and a
pointer of Git LFS is not taken for weights. Words and numbers come through `read_text`, `read_json`, `read_json_lines`
and `read_arrays`: what a file claims to hold is compared with its size before memory is taken.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from referencenet.later import later

if TYPE_CHECKING:
    import numpy as np
else:
    (np,) = later("numpy")

MAX_JSON = 2**28  # bytes of a text: key points of hours of film; JSON takes many times its size in memory
MAX_NUMBERS = 2**26  # in one file: face meshes of 26 minutes of film

_STAND_INS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: run `git lfs pull`, or download the file",
    b"<!doctype html": "is a web page, not the file itself: download that (on a hub its `resolve` address)",
    b"<html": "is a web page, not the file itself: download that (on a hub its `resolve` address)",
    b"<?xml": "is XML, not the file itself: download that (on a hub its `resolve` address)",
}
"""How files begin that people hold for others, and what they are."""


def regular_file(path: str | os.PathLike[str], what: str = "file") -> Path:
    """A file that can be read.

    Args:
        path: Of the file; a web address is none.
        what: It is expected to be, for errors.

    Raises:
        FileNotFoundError: If there is nothing.
        PermissionError: If it may not be read.
        ValueError: If it is a folder, a pipe or a device, empty, or stands in for another file.
    """
    text, path = str(path), Path(path)
    found = is_there(path)
    if not found and is_address(text):
        raise ValueError(f"{text} is a web address; download the {what} and give the path of the file.")
    if not found:
        raise FileNotFoundError(f"there is no {what} {path}; check the path (the current folder is {Path.cwd()}).")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the path of a {what} in it.")
    if not path.is_file():
        raise ValueError(f"{path} is a pipe or a device, not a file; write the {what} to a file first.")
    try:
        with path.open("rb") as file:
            start = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip().lower()
    except OSError as error:
        raise PermissionError(f"{path} cannot be read ({_reason(error)}); check its permissions.") from error
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty (0 bytes); get the {what} again.")
    for beginning, stands_in in _STAND_INS.items():
        if start.startswith(beginning):
            raise ValueError(f"{path} {stands_in}.")
    return path


def is_there(path: Path) -> bool:
    """Whether something is at a path.

    Raises:
        FileNotFoundError: If it is a name that no system takes.
    """
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        name = str(path)[:200]
        raise FileNotFoundError(f"{name!r} is not a name of a file ({_reason(error)}); check the path.") from error


def is_address(text: str) -> bool:
    """Whether somebody has written a web address for a path; a path made of one has lost a slash."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", text, re.IGNORECASE) is not None


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """A text file in UTF-8.

    Args:
        path: Of the file.
        what: It is expected to hold, for errors.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is other bytes, or too large.
    """
    file = regular_file(path, "file")
    if (size := file.stat().st_size) > MAX_JSON:
        raise ValueError(f"{file} has {size} bytes; text of at most {MAX_JSON} is read. Expected {what}.")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8 (byte {error.start}); expected {what}.") from error


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """What a JSON file holds.

    Args:
        path: Of the file.
        what: It is expected to hold, for errors.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is not JSON, or too large.
    """
    text = read_text(path, what)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({_reason(error)}); expected {what}.") from error


def read_json_lines(path: str | os.PathLike[str], what: str) -> list[tuple[int, Any]]:
    """What the lines of a file hold, each JSON by itself, with their numbers from 1; empty lines are skipped.

    Args:
        path: Of the file.
        what: A line is expected to hold, for errors.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If a line is not JSON, or the file is too large.
    """
    found: list[tuple[int, Any]] = []
    for number, line in enumerate(read_text(path, what).split("\n"), 1):  # other ends of lines may stand in words
        try:
            if line.strip():
                found.append((number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} of {path} is not JSON ({_reason(error)}); expected {what}.") from error
    return found


def read_arrays(path: str | os.PathLike[str], what: str, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The numbers of an .npz file by name, or those of an .npy file under the name "".

    Args:
        path: Of the file.
        what: It is expected to hold, for errors.
        names: Only these are read of an .npz file, as far as it has them; None: all.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is no such file, holds something else than numbers, or claims more than it has.
    """
    file = regular_file(path, "file")
    try:
        if not zipfile.is_zipfile(file):
            with file.open("rb") as opened:
                _check_array(opened, file.stat().st_size, MAX_NUMBERS)
                opened.seek(0)
                return {"": np.lib.format.read_array(opened, allow_pickle=False)}
        found: dict[str, np.ndarray] = {}
        left = MAX_NUMBERS
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name == member.filename or (names is not None and name not in names):
                    continue
                with archive.open(member) as opened:
                    left -= _check_array(opened, member.file_size, left)
                with archive.open(member) as opened:
                    found[name] = np.lib.format.read_array(opened, allow_pickle=False)
        return found
    except Exception as error:  # a damaged file fails in every way there is
        raise ValueError(f"{file} holds no arrays that can be read ({_reason(error)}); expected {what}.") from error


def read_array(path: str | os.PathLike[str], what: str, *, mapped: bool = False) -> np.ndarray:
    """The numbers of an .npy file.

    Args:
        path: Of the file.
        what: It is expected to hold, for errors.
        mapped: They may be of any size, and stay on the disk until they are asked for.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is no such file, holds something else than numbers, or claims more than it has.
    """
    if not mapped:
        found = read_arrays(path, what)
        if "" not in found:
            raise ValueError(f"{path} is an archive of arrays, not one; expected {what}.")
        return found[""]
    file = regular_file(path, "file")
    try:
        with file.open("rb") as opened:
            _check_array(opened, file.stat().st_size, sys.maxsize)
        return np.load(file, mmap_mode="c", allow_pickle=False)
    except Exception as error:  # a damaged file fails in every way there is
        raise ValueError(f"{file} holds no array that can be read ({_reason(error)}); expected {what}.") from error


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


def _check_array(file: IO[bytes], size: int, most: int) -> int:
    """Make sure that an array is one of numbers, and that a file of so many bytes has room for it; how many."""
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if header is None:
        raise ValueError(f"an array of format {version}")
    shape, _, dtype = header(file)
    count = math.prod(shape)
    if dtype.kind not in "fiu":
        raise ValueError(f"an array of {dtype}, not of numbers")
    if min(shape, default=1) < 0 or count * dtype.itemsize > size - file.tell():
        raise ValueError(f"an array of shape {shape} takes {count * dtype.itemsize} bytes, the file has {size}")
    if count > most:
        raise ValueError(f"arrays of shape {shape} and {count} numbers, at most {MAX_NUMBERS} are read")
    return count


def _reason(error: BaseException) -> str:
    """A library's sentence, short."""
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return (" ".join(text.split()) or type(error).__name__)[:200]


def _shown(given: Any) -> str:
    """The beginning of a value."""
    text = repr(given) if isinstance(given, str | bool | int | float | None) else f"a {type(given).__name__}"
    return text if len(text) < 60 else f"{text[:60]}..."
