"""Reading weight files as they lie on people's disks: safetensors, or pickled state dicts that carry no code.

What a file is, its first bytes say, not its name: published `.pth` files have turned out to be safetensors. Tensors are
mapped into memory, not read, so that a conversion needs no more than its largest file.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from referencenet.checkpoints.keymap import CheckpointError, some
from referencenet.inputs import regular_file

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs nest the state dict."""

_AVERAGES = ("ema", "ema_state_dict", "state_dict_ema", "model_ema", "params_ema")
"""Keys under which they nest its moving average; read where a file holds nothing else."""

_PREFIXES = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
"""What data parallelism and torch.compile put before every key; dropped where all keys have it."""

ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".th", ".ckpt")
"""Of weight files; what a file is, its first bytes say."""

_MOST_KEYS, _DEEPEST = 200_000, 16
"""Of a state dict: the largest models have some thousands of keys, nested three deep."""

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.\w+)")


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a weight file.

    Args:
        path: A `.safetensors`, `.bin`, `.pth`, `.pt` or `.ckpt` file; of a file in shards any of them, which lie side
            by side.

    Returns:
        Key to tensor, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file, or a shard is missing.
        CheckpointError: If the file is cut short, holds code, holds no tensors, or is no weight file at all.
    """
    found: dict[str, Tensor] = {}
    for shard in _shards(Path(path)):
        found |= _state_dict(_read(shard), shard)
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): tensor for key, tensor in found.items()}
    return found


def _shards(path: Path) -> list[Path]:
    """The files that a file is one of."""
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return [path]
    stem, _, count, ending = match.groups()
    return [path.with_name(f"{stem}-{i:05}-of-{count}{ending}") for i in range(1, min(int(count), 1000) + 1)]


def _read(path: Path) -> Any:
    """What a file holds, tensors mapped into memory."""
    try:
        regular_file(path, "weight file")
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    kind = _kind_of(path)
    try:
        return (
            load_file(path)
            if kind == "safetensors"
            else torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")
        )
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no whole safetensors file ({error}); download it again.") from error
    except pickle.UnpicklingError as error:
        code = re.search(r"(?:GLOBAL|class|function)\s+(\S*\w)", str(error))
        if code is None:
            raise CheckpointError(f"{path} cannot be read as weights; it is cut short: download it again.") from error
        raise CheckpointError(
            f"{path} holds more than tensors (code could run when it is read: it names {code[1]}), so it is not read. "
            "Get the file from its publisher, or convert it to safetensors on a machine you can afford to lose."
        ) from error
    except Exception as error:  # the parser raises whatever a damaged file makes of it
        raise CheckpointError(
            f"{path} cannot be read as weights ({first_line(error)}); it may be cut short: download it again."
        ) from error


def _kind_of(path: Path) -> str:
    """How a weight file is packed, by its first bytes.

    Raises:
        CheckpointError: If in no way that weights are, or in one that unpacks to more than the file has.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return "safetensors"
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise CheckpointError(
                f"{path} cannot be read as weights ({first_line(error)}); it may be cut short: download it again."
            ) from error
        packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
        if packed or sum(member.file_size for member in members) > path.stat().st_size:
            raise CheckpointError(f"{path} is packed ({some(packed, 3)}), as weight files never are, and could unpack "
                                  "to any size; get the file from its publisher.")  # fmt: skip
        return "zip"
    if not start.startswith(b"\x80"):
        raise CheckpointError(f"{path} is no weight file: it begins with {start!r}; expected safetensors, or a file of "
                              "torch.save.")  # fmt: skip
    return "pickle"


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are not numbers.

    Raises:
        CheckpointError: If a tensor holds NaN or infinite values.
    """
    broken = [
        key for key, tensor in state.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if broken:
        raise CheckpointError(
            f"{source} holds NaN or infinite weights in {some(broken)}; the file is damaged or its training failed."
        )


def _state_dict(found: Any, path: Path) -> dict[str, Tensor]:
    """Unwrap a state dict."""
    for wrapper in _WRAPPERS:
        if isinstance(found, dict) and isinstance(cast(dict[str, Any], found).get(wrapper), dict):
            found = cast(dict[str, Any], found)[wrapper]
    if isinstance(found, dict):
        nested = [key for key, value in cast(dict[str, Any], found).items() if isinstance(value, dict)]
        if len(nested) == 1 and nested[0] in _AVERAGES:
            found = cast(dict[str, Any], found)[nested[0]]
    if not isinstance(found, dict) or not found:
        raise CheckpointError(
            f"{path} holds a {type(found).__name__}, expected a dictionary of tensors (a state dict)."
        )
    flat = _flatten(cast(dict[str, Any], found), path)
    others = [key for key, value in flat.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path} holds values that are no tensors ({some(others)}); expected a state dict.")
    odd = [f"{key} ({tensor.layout}, {tensor.dtype})" for key, tensor in flat.items() if not _is_plain(tensor)]
    if odd:
        raise CheckpointError(
            f"{path} holds {some(odd, 3)}: sparse, quantised, eight-bit or expanded tensors; expected plain weights of "
            "16 bits or more: get those, or convert the file."
        )
    return flat


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, of a common type, and no larger than what is stored of it."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return False
    fits = tensor.numel() * tensor.itemsize <= tensor.untyped_storage().nbytes()
    return fits and not (tensor.is_floating_point() and tensor.itemsize < 2)


def _flatten(nested: dict[str, Any], path: Path) -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    waiting = [("", nested, 0)]
    while waiting:
        prefix, part, depth = waiting.pop()
        for key, value in part.items():
            if isinstance(value, dict):
                waiting.append((f"{prefix}{key}.", cast(dict[str, Any], value), depth + 1))
            else:
                flat[f"{prefix}{key}"] = value
        if depth > _DEEPEST or len(flat) + len(waiting) > _MOST_KEYS:
            raise CheckpointError(
                f"{path} nests dictionaries deeper than {_DEEPEST} or has more than {_MOST_KEYS} keys; expected a "
                "state dict."
            )
    return flat


def first_line(error: BaseException) -> str:
    """The first line of what a library says."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
