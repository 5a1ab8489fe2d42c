"""Banks as safetensors files: written whole or not at all, and read with bounds before memory is taken.

A bank may come from anybody. What its header claims is compared with the file before a tensor is made of it; entries
are floating-point tensors of few dimensions with finite numbers, or the file is refused in one line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from referencenet.inputs import regular_file

MAX_HEADER = 32 * 2**20  # bytes: room for 10,000 steps' worth of names would be hostile long before
MAX_ENTRIES = 100_000  # 50 steps of SDXL's 70 sites are 7,000
MAX_DIMENSIONS = 6
DTYPES = {"F64", "F32", "F16", "BF16"}


def write_entries(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write entries; the file appears whole or not at all.

    Raises:
        ValueError: If there are numbers that are not finite, which no reader would take.
    """
    if broken := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise ValueError(
            f"{path} is not written: {broken[0]!r} holds numbers that are not finite, as {len(broken)} of "
            f"{len(tensors)} entries do; write the reference again, in float32 or with whole weights."
        )
    stored: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        kept = tensor.detach().contiguous().cpu()
        place = kept.untyped_storage().data_ptr()
        stored[name] = kept.clone() if place in places else kept  # such as one context in the banks of all steps
        places.add(place)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(stored, partial, metadata=metadata)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_entries(path: Path, form: str, device: torch.device | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The entries and metadata of a file of ours.

    Args:
        path: Of the file.
        form: What its metadata must call its format.
        device: For the tensors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a complete file of this form, or holds what a bank cannot hold.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no bank file at {path}; write one with ReferenceBank.save.")
    regular_file(path, "bank")
    _check_header(path)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != form:
                raise ValueError(
                    f"{path} is not {_name(form)}: its format is {metadata.get('format')!r}, not {form!r}."
                )
            names = list(file.keys())
            _check_entries(path, {name: file.get_slice(name) for name in names})
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}); write the bank again.") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path} has numbers that are not finite in {name!r}; write the bank again.")
    return tensors, metadata


def _check_header(path: Path) -> None:
    """The header fits into the file and into a bound."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise ValueError(
            f"{path} is not a bank: its first bytes claim a header of {length} bytes (the file has "
            f"{path.stat().st_size}, a bank's header at most {MAX_HEADER})."
        )


def _check_entries(path: Path, entries: Mapping[str, object]) -> None:
    """Few enough entries, of kinds that banks hold."""
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"{path} has {len(entries)} entries; a bank has at most {MAX_ENTRIES}.")
    for name, entry in entries.items():
        shape, dtype = entry.get_shape(), entry.get_dtype()  # pyright: ignore[reportAttributeAccessIssue] - untyped
        if dtype not in DTYPES or not 1 <= len(shape) <= MAX_DIMENSIONS or 0 in shape:
            raise ValueError(
                f"{path} is not a bank: its entry {name[:100]!r} is {dtype} {shape}; expected {sorted(DTYPES)} and 1 "
                f"to {MAX_DIMENSIONS} dimensions above 0."
            )


def _name(form: str) -> str:
    kinds = {"bank": "a reference bank", "series": "a series of banks", "reference": "an encoded reference"}
    return kinds.get(form.split("-")[1], form)
