"""Reading weight files as they lie on people's disks: safetensors, or pickled state dicts that carry no code.

What a file is, its first bytes say, not its name: published `.pth` files have turned out to be safetensors. Tensors are
mapped into memory, not read, so that a conversion needs no more than its largest file.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from referencenet.checkpoints.keymap import CheckpointError, some

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs nest the state dict."""

_AVERAGES = ("ema", "ema_state_dict", "state_dict_ema", "model_ema", "params_ema")
"""Keys under which they nest its moving average; read where a file holds nothing else."""

_PREFIXES = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
"""What data parallelism and torch.compile put before every key; dropped where all keys have it."""

_NO_WEIGHTS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: run `git lfs pull`, or download the file",
    b"<!doctype html": "is a web page, not a weight file: download the file itself (on a hub its `resolve` address)",
    b"<html": "is a web page, not a weight file: download the file itself (on a hub its `resolve` address)",
}
"""How files begin that people hold for weights, and what they are."""

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
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}.")
    with path.open("rb") as file:
        start = file.read(32).lower()
    for beginning, what in _NO_WEIGHTS.items():
        if start.startswith(beginning):
            raise CheckpointError(f"{path} {what}.")
    try:
        return (
            load_file(path)
            if _is_safetensors(path)
            else torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
        )
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no whole safetensors file ({error}); download it again.") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors (code could run when it is read), so it is not read: {_first_line(error)} "
            "Get the file from its publisher, or convert it to safetensors on a machine you can afford to lose."
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as weights ({_first_line(error)}); it may be cut short: download it again."
        ) from error


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
    flat = _flatten(cast(dict[str, Any], found))
    others = [key for key, value in flat.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path} holds values that are no tensors ({some(others)}); expected a state dict.")
    return flat


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flatten(cast(dict[str, Any], value), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the header's length, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (len(start) == 9 and start[8:9] == b"{")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
