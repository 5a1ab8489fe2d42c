"""What diffusers' and transformers' own loaders read, strictly: they put random numbers where a file lacks a tensor.

Here a tensor that is missing, of another shape or not finite is an error, whatever read it: a part of a release, a
folder that `save_pretrained` wrote, or a model of the hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from referencenet.checkpoints.containers import container_of
from referencenet.checkpoints.files import ENDINGS, check_finite, first_line
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.inputs import read_json, regular_file
from referencenet.telling import some

MOST = {"layers": 1000, "blocks": 1000, "train_timesteps": 100_000}
"""Words in a configuration's names to the most that they may be: what is built of them takes time or memory."""

MAX_NUMBER = 2**40  # of any kind in a configuration: more is no count of anything

CONFIGURATIONS = ("config.json", "scheduler_config.json", "preprocessor_config.json")
"""Of a part; tokenizers check their own."""

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""Of the files that the loaders take."""


PLAIN = {"dtype", "torch_dtype", "variant", "use_safetensors", "low_cpu_mem_usage", "local_files_only"}
"""Options of a loader with which it does no more than read files."""

HUB = {"cache_dir", "force_download", "proxies", "revision", "token", "trust_remote_code"}
"""Options of a loader that say how files come from the hub."""


def read_library_part(kind: Any, place: str | Path, *, subfolder: str | None = None, **settings: Any) -> Any:
    """Read a part by its library's own loader.

    Args:
        kind: A class of diffusers or transformers: a network, tokenizer, processor or scheduler.
        place: Its folder, or a hub name.
        subfolder: Below it.
        settings: In place of the configuration's.

    Raises:
        FileNotFoundError: If the folder has no such part.
        CheckpointError: If a tensor is missing, of another shape, or not finite; or a configuration claims a larger
            network than its files hold.
        ValueError: If a weight file is empty, a pointer of Git LFS or a web page.
    """
    where = f"{place}/{subfolder}" if subfolder else str(place)
    if Path(where).is_dir():
        _check_folder(kind, Path(where))
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


def local_folder(kind: Any, place: str | Path, given: Mapping[str, Any]) -> Path:
    """The folder of a saved pipeline: the one that is named, or where its files of the hub lie in the local cache.

    Args:
        kind: A class of pipelines.
        place: Its folder, or a hub name, whose files are fetched if they are not there.
        given: Options of the pipeline's `from_pretrained`.
    """
    if Path(place).is_dir() or str(place).count("/") > 1:
        return Path(place)
    return Path(kind.download(str(place), **given))


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
    index = read_index(folder)
    named = [name for name, entry in index.items() if _is_named(entry) and not name.startswith("_")]
    if absent := [name for name in named if name not in given and not (folder / name).is_dir()]:
        raise FileNotFoundError(
            f"{folder} has no folder {some(absent)}, which its model_index.json names; get the whole folder again."
        )
    for name in named:
        for configuration in (folder / name / file for file in CONFIGURATIONS):
            if name not in given and configuration.is_file():
                read_configuration(configuration)
    if not set(given) <= PLAIN | HUB | index.keys():
        return {}
    found: dict[str, Any] = {}
    for name, entry in index.items():
        kind = _kind(entry) if name not in given and (folder / name).is_dir() else None
        if kind is not None and issubclass(kind, nn.Module):
            found[name] = read_library_part(kind, folder / name, **_options(name, folder / name, given))
    return found


def read_index(folder: Path) -> dict[str, Any]:
    """The `model_index.json` of a saved pipeline.

    Raises:
        FileNotFoundError: If there is none.
        CheckpointError: If it is none, or names what lies in other libraries than these.
    """
    path = folder / "model_index.json"
    try:
        index = read_json(path, "the index of a saved pipeline")
    except ValueError as error:
        raise CheckpointError(f"{error} Get the whole folder again.") from error
    if not isinstance(index, dict):
        raise CheckpointError(f"{path} is not an index but a {type(index).__name__}: get the whole folder again.")
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list):
            continue
        if not all(isinstance(word, str | None) for word in entry) or (_is_named(entry) and _kind(entry) is None):
            raise CheckpointError(
                f"{path} names {str(entry)[:100]} for {name[:100]!r}, which is not a part of diffusers, transformers "
                "or this package; get the folder from its publisher, or update the libraries."
            )
    return index


def check_networks(parts: Mapping[str, Any], where: str) -> None:
    """Refuse networks whose weights are not numbers.

    Raises:
        CheckpointError: If one holds NaN or infinite values.
    """
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            check_finite(part.state_dict(), f"{name} of {where}")


def _is_named(entry: Any) -> bool:
    """Whether an entry of an index names a class, not a setting or a part that is left out."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)


def _kind(entry: Any) -> Any:
    """The class that an index names by its library and its name; None if it names none."""
    if not _is_named(entry):
        return None
    library, name = entry
    own = getattr(diffusers.pipelines, library, None)
    if own is not None:
        return getattr(own, name, None)
    if library.split(".")[0] not in ("diffusers", "transformers", "referencenet"):
        return None
    try:
        found = getattr(import_module(library), name, None)
    except ImportError:
        return None
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


def read_configuration(path: Path) -> dict[str, Any]:
    """What a configuration says.

    Raises:
        FileNotFoundError: If there is none.
        CheckpointError: If it is none, or claims what no network has.
    """
    try:
        found = read_json(path, "a configuration")
    except ValueError as error:
        raise CheckpointError(f"{path} is not a configuration ({error}): download it again.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not a configuration but a {type(found).__name__}: download it again.")
    for name, number in _values(found):
        most = next((most for word, most in MOST.items() if word in name), MAX_NUMBER)
        if isinstance(number, str):
            if name == "num_train_timesteps":
                raise CheckpointError(f"{path} claims {name} = {number[:80]!r}; expected a number: download it again.")
            continue
        if abs(number) > most:
            raise CheckpointError(f"{path} claims {name} = {number:g}, at most {most}: no network has so many.")
    return found


def _check_folder(kind: Any, folder: Path) -> None:
    """Look at a part's files before its library does."""
    for file in sorted(folder.iterdir()):
        if file.suffix in (*ENDINGS, ".json") and not file.name.startswith("."):
            regular_file(file, "file")
    configuration = folder / "config.json"
    for name in CONFIGURATIONS:
        if (folder / name).is_file():
            read_configuration(folder / name)
    for index in folder.glob("*.index.json"):
        _check_index(index)
    if not issubclass(kind, nn.Module):
        return
    stored = [
        path for path in sorted(folder.iterdir()) if path.is_file() and path.name.split("-")[0].split(".")[0] in STEMS
    ]
    weights = [path for path in stored if path.suffix == ".safetensors"] or [
        path for path in stored if path.suffix == ".bin"
    ]
    for path in weights:
        container_of(path)
    if weights and configuration.is_file():
        _check_claim(kind, folder, sum(path.stat().st_size for path in weights))


def _check_index(index: Path) -> None:
    """Make sure that the shards that an index names lie beside it."""
    found = read_json(index, "the index of a file in shards")
    named = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise CheckpointError(f"{index} is not an index of a file in shards: it has no weight_map; download it again.")
    for name in sorted(set(named.values())):
        if Path(name).name != name:
            raise CheckpointError(f"{index} names {name[:200]!r}, outside of its folder; get the folder again.")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index} names {name[:200]!r}, which is not beside it; get the whole folder again.")


def _check_claim(kind: Any, folder: Path, num_bytes: int) -> None:
    """Make sure that a configuration claims no larger network than the files hold, before it is built."""
    try:
        with torch.device("meta"):
            if hasattr(kind, "load_config"):
                network = kind.from_config(kind.load_config(str(folder)))
            else:
                network = kind(kind.config_class.from_pretrained(str(folder)))
    except Exception as error:  # whatever the library says of what it cannot build
        raise CheckpointError(
            f"{folder / 'config.json'} describes no {kind.__name__} ({first_line(error)}); download it again."
        ) from error
    claimed = sum(parameter.numel() for parameter in network.parameters())
    if claimed > 2 * num_bytes:
        raise CheckpointError(
            f"{folder / 'config.json'} claims {claimed} weights, and the files beside it have {num_bytes} bytes: they "
            "do not belong together. Get the whole folder again."
        )


def _values(found: Any, name: str = "") -> Iterator[tuple[str, float | str]]:
    """Every number and word of a document, and the key that it stands under."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            yield from _values(value, str(key))
    elif isinstance(found, list):
        for value in found:
            yield from _values(value, name)
    elif isinstance(found, int | float | str):
        yield name, found
