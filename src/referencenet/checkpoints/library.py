"""What diffusers' and transformers' own loaders read, strictly: they put random numbers where a file lacks a tensor.

Here a tensor that is missing, of another shape or not finite is an error, whatever read it: a part of a release, a
folder that `save_pretrained` wrote, or a model of the hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from referencenet.checkpoints.files import ENDINGS, check_finite, first_line
from referencenet.checkpoints.keymap import CheckpointError, some
from referencenet.inputs import read_json, regular_file

PLAIN = {"dtype", "torch_dtype", "variant", "use_safetensors", "low_cpu_mem_usage", "local_files_only"}
"""Options of a loader with which it does no more than read files."""


def read_library_part(kind: Any, place: str | Path, *, subfolder: str | None = None, **settings: Any) -> Any:
    """Read a part by its library's own loader.

    Args:
        kind: A class of diffusers or transformers: a network, tokenizer, processor or scheduler.
        place: Its folder, or a hub name.
        subfolder: Below it.
        settings: In place of the configuration's.

    Raises:
        FileNotFoundError: If the folder has no such part.
        CheckpointError: If a tensor is missing, of another shape, or not finite.
        ValueError: If a weight file is empty, a pointer of Git LFS or a web page.
    """
    where = f"{place}/{subfolder}" if subfolder else str(place)
    if Path(where).is_dir():
        for file in sorted(Path(where).iterdir()):
            if file.suffix in (*ENDINGS, ".json") and not file.name.startswith("."):
                regular_file(file, "file")
    options: dict[str, Any] = settings if subfolder is None else {"subfolder": subfolder, **settings}
    is_network = issubclass(kind, nn.Module)
    try:
        found = kind.from_pretrained(str(place), **options, **({"output_loading_info": True} if is_network else {}))
    except OSError as error:
        raise FileNotFoundError(f"{where} holds no {kind.__name__} that can be read: {first_line(error)}") from error
    except Exception as error:  # loaders of foreign files raise whatever their parsers do
        raise CheckpointError(
            f"{where} holds no {kind.__name__} that can be read ({type(error).__name__}: {first_line(error)}); get the "
            "whole folder again."
        ) from error
    if not is_network:
        return found
    network, info = found
    missing = sorted(map(str, info.get("missing_keys", ())))
    misshapen = sorted(str(entry[0]) for entry in info.get("mismatched_keys", ()))
    if missing or misshapen:
        raise CheckpointError(
            f"{where} does not fit {kind.__name__}: {len(missing)} tensors missing ({some(missing)}), "
            f"{len(misshapen)} of another shape ({some(misshapen)}). Get the whole files again."
        )
    check_finite(network.state_dict(), where)
    return network


def read_networks(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The networks of a saved pipeline, each read strictly.

    Args:
        folder: Holds `model_index.json`, and a folder for each part.
        given: Options of the pipeline's `from_pretrained`: parts that are not to be read, type and variant. With
            others, such as a quantisation, the library reads by itself.

    Returns:
        Networks by name; nothing where the library is to read them.

    Raises:
        CheckpointError: If a tensor is missing, of another shape, or not finite.
    """
    index: dict[str, Any] = read_json(folder / "model_index.json", "the index of a saved pipeline")
    if not set(given) <= PLAIN | index.keys():
        return {}
    found: dict[str, Any] = {}
    for name, entry in index.items():
        kind = _kind(entry) if name not in given and (folder / name).is_dir() else None
        if kind is not None and issubclass(kind, nn.Module):
            found[name] = read_library_part(kind, folder / name, **_options(name, folder / name, given))
    return found


def check_networks(parts: Mapping[str, Any], where: str) -> None:
    """Refuse networks whose weights are not numbers.

    Raises:
        CheckpointError: If one holds NaN or infinite values.
    """
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            check_finite(part.state_dict(), f"{name} of {where}")


def _kind(entry: Any) -> Any:
    """The class that an index names by its library and its name; None if it names none."""
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(word, str) for word in entry):
        return None
    library, name = entry
    own = getattr(diffusers.pipelines, library, None)
    if own is not None:
        return getattr(own, name, None)
    if library.split(".")[0] not in ("diffusers", "transformers", "referencenet"):
        return None
    found = getattr(import_module(library), name, None)
    return found if isinstance(found, type) and hasattr(found, "from_pretrained") else None


def _options(name: str, folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a part's loader is told, as the pipeline's would tell it."""
    dtype = given.get("dtype", given.get("torch_dtype"))
    if isinstance(dtype, Mapping):
        dtype = dtype.get(name, dtype.get("default", torch.float32))
    variant = given.get("variant")
    has_variant = variant is not None and any(f".{variant}." in file.name for file in folder.iterdir())
    kept = {key: given[key] for key in ("use_safetensors", "low_cpu_mem_usage") if key in given}
    return {"dtype": dtype, **kept, **({"variant": variant} if has_variant else {})}
