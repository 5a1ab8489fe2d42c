"""Files that somebody hands over, opened with bounds: what is there is looked at before it is read or believed.

Every reader of the library asks `regular_file` first, so that a pipe does not hang, a folder is not opened and a
pointer of Git LFS is not taken for weights. Numbers come through `read_json` and `read_arrays`: what a file claims to
hold is compared with its size before memory is taken.
"""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

MAX_JSON = 2**28  # bytes: key points of hours of film; a document takes many times its size in memory
MAX_ARRAYS = 2**31  # bytes, unpacked: face meshes of an hour of film

_STAND_INS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: run `git lfs pull`, or download the file",
    b"<!doctype html": "is a web page, not the file itself: download that (on a hub its `resolve` address)",
    b"<html": "is a web page, not the file itself: download that (on a hub its `resolve` address)",
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
    try:
        is_there = path.exists()
    except (OSError, ValueError) as error:  # a name that no system takes
        raise FileNotFoundError(f"{text[:200]!r} is no name of a file ({_reason(error)}); check the path.") from error
    if not is_there and re.match(r"[a-z][a-z0-9+.-]+:/", text, re.IGNORECASE):
        raise ValueError(f"{text} is a web address; download the {what} and give the path of the file.")
    if not is_there:
        raise FileNotFoundError(f"there is no {what} {path}; check the path (the current folder is {Path.cwd()}).")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the path of a {what} in it.")
    if not path.is_file():
        raise ValueError(f"{path} is a pipe or a device, not a file; write the {what} to a file first.")
    try:
        with path.open("rb") as file:
            start = file.read(32).lstrip().lower()
    except OSError as error:
        raise PermissionError(f"{path} cannot be read ({_reason(error)}); check its permissions.") from error
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty (0 bytes); get the {what} again.")
    for beginning, stands_in in _STAND_INS.items():
        if start.startswith(beginning):
            raise ValueError(f"{path} {stands_in}.")
    return path


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """What a JSON file holds.

    Args:
        path: Of the file.
        what: It is expected to hold, for errors.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is no JSON, or too large.
    """
    file = regular_file(path, "file")
    if (size := file.stat().st_size) > MAX_JSON:
        raise ValueError(f"{file} has {size} bytes; JSON of at most {MAX_JSON} is read. Expected {what}.")
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON ({_reason(error)}); expected {what}.") from error


def read_arrays(path: str | os.PathLike[str], what: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, or the one of an .npy file under the name "".

    Args:
        path: Of the file.
        what: It is expected to hold, for errors.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is no such file, holds Python objects, or claims more than it has.
    """
    file = regular_file(path, "file")
    try:
        if not zipfile.is_zipfile(file):
            with file.open("rb") as opened:
                return {"": _read_array(opened, file.stat().st_size)}
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            if (size := sum(member.file_size for member in members)) > MAX_ARRAYS:
                raise ValueError(f"its arrays have {size} bytes, at most {MAX_ARRAYS} are read")
            found: dict[str, np.ndarray] = {}
            for member in members:
                with archive.open(member) as opened:
                    found[member.filename.removesuffix(".npy")] = _read_array(opened, member.file_size)
            return found
    except (ValueError, OSError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile, NotImplementedError,
            RuntimeError, KeyError, TypeError, SyntaxError) as error:  # fmt: skip
        raise ValueError(f"{file} holds no arrays that can be read ({_reason(error)}); expected {what}.") from error


def _read_array(file: IO[bytes], size: int) -> np.ndarray:
    """An array of a file in NumPy's format of so many bytes."""
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if header is None:
        raise ValueError(f"an array of format {version}")
    shape, _, dtype = header(file)
    if (claimed := math.prod(shape) * dtype.itemsize) > min(size, MAX_ARRAYS):
        raise ValueError(f"an array of shape {shape} takes {claimed} bytes, the file has {size}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _reason(error: BaseException) -> str:
    """A library's sentence, short."""
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return (" ".join(text.split()) or type(error).__name__)[:200]
