"""Reading weight files as they lie on people's disks: safetensors, or pickled state dicts that carry no code.

What a file is, its first bytes say, not its name: published `.pth` files have turned out to be safetensors. Tensors are
mapped into memory, not read, so that a conversion needs no more than its largest file.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from referencenet.checkpoints.containers import BoundedFile, Container, check_tensors, container_of, flatten, tensors_in
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.inputs import regular_file
from referencenet.telling import some

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs nest the state dict."""

_AVERAGES = ("ema", "ema_state_dict", "state_dict_ema", "model_ema", "params_ema")
"""Keys under which they nest its moving average; read where a file holds nothing else."""

_PREFIXES = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
"""What data parallelism and torch.compile put before every key; dropped where all keys have it."""

ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".th", ".ckpt")
"""Of weight files; what a file is, its first bytes say."""

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
        CheckpointError: If the file is cut short, holds code, holds no tensors, or is not a weight file at all.
    """
    found: dict[str, Tensor] = {}
    for shard in _shards(Path(path)):
        found |= _state_dict(_read(shard), shard)
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): tensor for key, tensor in found.items()}
    return found


def read_saved(path: str | Path) -> Any:
    """What torch.save wrote, of dictionaries, lists, tensors and plain values.

    Args:
        path: Of the file.

    Returns:
        What was saved, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is cut short, holds code, or claims tensors that it does not hold.
    """
    path = Path(path)
    found = _read(path)
    check_tensors({str(i): tensor for i, tensor in enumerate(tensors_in(found, path))}, path)
    return found


def _shards(path: Path) -> list[Path]:
    """The files that a file is one of."""
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return [path]
    stem, _, count, ending = match.groups()
    if not int(count):
        raise CheckpointError(f"{path} calls itself a shard of none; give it the name that its publisher gives it.")
    return [path.with_name(f"{stem}-{i:05}-of-{count}{ending}") for i in range(1, min(int(count), 1000) + 1)]


def _read(path: Path) -> Any:
    """What a file holds, tensors mapped into memory."""
    container = container_of(path)
    try:
        if container is Container.SAFETENSORS:
            return load_file(path)
        if container is Container.ZIP:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with BoundedFile(path) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a complete safetensors file ({error}); download it again.") from error
    except pickle.UnpicklingError as error:
        code = re.search(r"(?:GLOBAL|class|function)\s+(\S*\w)", str(error))
        if code is None:
            raise CheckpointError(f"{path} cannot be read as weights; it is cut short: download it again.") from error
        raise CheckpointError(
            f"{path} holds more than tensors (code could run when it is read: it names {code[1]}), so it is not read. "
            "Get the file from its publisher, or convert it to safetensors on a machine you can afford to lose."
        ) from error
    except Exception as error:  # a damaged pickle fails in every way there is
        raise CheckpointError(
            f"{path} cannot be read as weights ({type(error).__name__}); it may be cut short: download it again."
        ) from error


def read_torchscript(path: str | Path, what: str, advice: str, device: str | torch.device = "cpu") -> Any:
    """A network as a TorchScript archive, ready to be called.

    Args:
        path: Of the file.
        what: The network, for errors.
        advice: What to give instead, for errors.
        device: Where it computes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a TorchScript archive.
        CheckpointError: If it holds numbers that are not finite.
    """
    regular_file(path, what)
    try:
        with warnings.catch_warnings():  # torch advises another format, but networks are released in this one
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            network = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{path} is not a TorchScript archive ({first_line(error)}); {advice}.") from error
    check_finite(network.state_dict(), str(path))
    return network


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
        what = "no tensor" if found == {} else f"a {type(found).__name__}"
        raise CheckpointError(f"{path} holds {what}, expected a dictionary of tensors (a state dict).")
    flat = flatten(cast(dict[Any, Any], found), path)
    check_tensors(flat, path)
    return flat


def first_line(error: BaseException) -> str:
    """The first line of what a library says."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
