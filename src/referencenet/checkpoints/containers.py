"""What a weight file is by its first bytes, and whether what it claims of itself fits into it: before any is read.

A file may come from anybody. What unpacks to more than the file, nests without end or claims tensors that it does not
hold is refused here, so that reading takes no more memory than the file has bytes.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import zipfile
from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from referencenet.checkpoints.keymap import CheckpointError
from referencenet.inputs import regular_file
from referencenet.telling import some


class Container(Enum):
    """How tensors lie in a file."""

    SAFETENSORS = auto()
    ZIP = auto()
    PICKLE = auto()


PROBED = 2**16  # bytes that readers ask for to see what a file is, though there may be fewer


class BoundedFile(io.BufferedReader):
    """A file that gives no more than it has: damaged pickles ask for gigabytes, and Python would make room for them.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.num_bytes = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, or all.

        Raises:
            EOFError: If there are by far not so many.
        """
        if size is not None and size > self.num_bytes - self.tell() + PROBED:
            raise EOFError(f"{size} bytes are claimed where {self.num_bytes - self.tell()} are")
        return super().read(size)


MAX_HEADER = 2**26  # bytes of names and shapes: those of the largest released files are below a million
MAX_KEYS = 200_000
MAX_VALUES = 2_000_000
MAX_DEPTH = 8  # of dictionaries in dictionaries

DTYPES = frozenset({
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
})  # fmt: skip
"""What networks are made of."""

_NO_WEIGHTS = {
    rb"\s*[\[{]\s*\"": "is JSON, perhaps the error of a failed download, not a weight file: download it again",
    rb"gguf": "is a GGUF file, which is not read; get safetensors or what torch.save writes",
    rb"\x1f\x8b": "is packed by gzip: unpack it first",
    rb"(\xfd7zxz|7z\xbc\xaf|rar!)": "is a packed archive: unpack it first",
    rb"\x89hdf": "is an HDF5 file, which is not read; get safetensors or what torch.save writes",
    rb".{257}ustar": "is a tar archive: unpack it first (torch's oldest format is not read)",
}
"""How files begin, in lower case, that people hold for weights, and what they are."""


def container_of(path: Path) -> Container:
    """What a file is; it is then known to claim no more than it holds.

    Raises:
        FileNotFoundError: If there is nothing.
        CheckpointError: If it is not a weight file, or not a whole one.
    """
    try:
        regular_file(path, "weight file")
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return Container.ZIP
    if start[8:9] == b"{":  # before pickles: a header of 128 bytes begins as they do
        _read_header(path)
        return Container.SAFETENSORS
    if start.startswith(b"\x80"):
        return Container.PICKLE
    for beginning, what in _NO_WEIGHTS.items():
        if re.match(beginning, start.lower(), re.DOTALL):
            raise CheckpointError(f"{path} {what}.")
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path} is not a complete safetensors file: it has no header; download it again.")
    raise CheckpointError(
        f"{path} is not a weight file: it begins with {start[:8]!r}; expected safetensors or what torch.save writes."
    )


def _read_header(path: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors.

    Raises:
        CheckpointError: If it says more than the file holds.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, MAX_HEADER):
            raise CheckpointError(
                f"{path} is not a complete safetensors file: it claims a header of {length} bytes and has {size - 8} "
                "after the claim; download it again."
            )
        text = file.read(length)
    try:
        header: Any = json.loads(text)
        entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file: its header is damaged ({type(error).__name__}); download "
            "it again."
        ) from error
    if max(ends, default=0) > size - 8 - length:
        raise CheckpointError(
            f"{path} is not a complete safetensors file: its tensors need {max(ends)} bytes and it has "
            f"{size - 8 - length}; it is cut short: download it again."
        )
    return entries


def _check_zip(path: Path) -> None:
    """Make sure that an archive is one that torch.save writes, whole and not compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise CheckpointError(
            f"{path} cannot be read as weights ({error}); it may be cut short: download it again."
        ) from error
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(f"{path} is a TorchScript archive, a program; get the weights alone, a state dict.")
    if not any(name.endswith("/data.pkl") for name in names):
        raise CheckpointError(
            f"{path} is not a weight file: it is an archive of {some(names, 3) or 'nothing'}; expected what torch.save "
            "writes, or unpack it."
        )
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise CheckpointError(
            f"{path} is packed ({some(packed, 3)}), as weight files never are, and could unpack to any size; get the "
            "file from its publisher."
        )
    described = sum(member.file_size for member in members if not member.filename.rpartition("/")[0].endswith("/data"))
    if len(members) > MAX_KEYS or described > MAX_HEADER:
        raise CheckpointError(
            f"{path} describes its tensors in {described} bytes and {len(members)} parts; expected at most "
            f"{MAX_HEADER} and {MAX_KEYS}. It is not a weight file."
        )


def flatten(nested: Mapping[Any, Any], source: Path) -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots.

    Raises:
        CheckpointError: If they nest without end, or a key is no word.
    """
    flat: dict[str, Any] = {}

    def enter(level: Mapping[Any, Any], prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH or len(flat) > MAX_KEYS:
            raise CheckpointError(
                f"{source} nests dictionaries deeper than {MAX_DEPTH}, or has more than {MAX_KEYS} keys; expected a "
                "state dict."
            )
        for key, value in level.items():
            if not isinstance(key, str):
                raise CheckpointError(f"{source} has the key {str(key)[:100]}, no word; expected a state dict.")
            if isinstance(value, Mapping):
                enter(cast(Mapping[Any, Any], value), f"{prefix}{key}.", depth + 1)
            else:
                flat[f"{prefix}{key}"] = value

    enter(nested, "", 1)
    return flat


def tensors_in(value: Any, source: Path) -> list[Tensor]:
    """Every tensor in dictionaries and lists.

    Raises:
        CheckpointError: If they nest without end.
    """
    found: list[Tensor] = []
    waiting: list[tuple[Any, int]] = [(value, 0)]
    for seen in itertools.count():
        if not waiting:
            return found
        value, depth = waiting.pop()
        if depth > MAX_DEPTH or seen > MAX_VALUES:
            raise CheckpointError(f"{source} nests deeper than {MAX_DEPTH}, or has more than {MAX_VALUES} values.")
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, Mapping | list | tuple):
            parts = cast(Any, value.values() if isinstance(value, Mapping) else value)
            waiting += [(part, depth + 1) for part in parts]
    return found


def check_tensors(tensors: Mapping[str, Any], source: Path) -> None:
    """Make sure that tensors are plain ones which the file really holds.

    Raises:
        CheckpointError: If one is none, is of a kind that networks are not made of, or claims more than there is.
    """
    others = [key for key, value in tensors.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{source} holds values that are not tensors ({some(others)}); expected a state dict.")
    claimed = 0
    for key, tensor in tensors.items():
        if kind := _foreign(tensor):
            raise CheckpointError(
                f"{source} holds {key[:200]!r} as {kind}, which is not read; convert the file to float32, float16 or "
                "bfloat16."
            )
        claimed += tensor.nbytes
    held = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()}.values())
    if claimed > 4 * held:  # tied weights stand there twice
        raise CheckpointError(
            f"{source} claims tensors of {claimed} bytes and holds {held} bytes of them: it is no file that training "
            "wrote. Get it from its publisher."
        )


def _foreign(tensor: Tensor) -> str:
    """What a tensor is that networks are not made of; empty if it is a plain one."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return "a tensor without numbers"
    if tensor.is_quantized:
        return f"a quantised tensor ({dtype})"
    if tensor.layout != torch.strided or type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.is_nested:
        return "a sparse or nested tensor"
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        return f"an expanded tensor, {tuple(tensor.shape)} of {tensor.untyped_storage().nbytes()} bytes"
    return "" if tensor.dtype in DTYPES else f"{dtype} numbers"
