"""From the rows of `registry.py` to what they name: pipelines, published file sets, key lists.

Whatever speaks of all systems (commands, conversion, checks of key lists, tests) asks here, so that a system is entered
in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from referencenet.checkpoints.published import PublishedFile, PublishedSet
from referencenet.methods.registry import METHODS, Method, Task
from referencenet.pipelines.folders import FolderPipeline


class UnknownSystem(ValueError):
    """A folder holds a pipeline of another library."""


def entry_of(row: Method) -> Any:
    """What a working system's row names.

    Raises:
        ValueError: If it is planned.
    """
    if row.entry is None:
        raise ValueError(f"{row.title} is planned; nothing of it can be run yet.")
    module, name = row.entry.split(":")
    return getattr(import_module(f"referencenet.{module}"), name)


def pipelines(task: Task | None = None) -> Mapping[str, Any]:
    """System, or published set of a system, to the pipeline that reads it; of one command, or of all."""
    found: dict[str, Any] = {}
    for row in METHODS.values():
        if row.entry is None or not row.has_pipeline or task not in (None, row.task, *row.also):
            continue
        module = _module_of(row)
        own = row.also.get(task) if task else None
        found[row.name] = getattr(module, own) if own else entry_of(row)
        others = () if task is None else {row.public_name, *row.also.values()} - {found[row.name].__name__}
        for name, pipeline in vars(module).items():
            published = getattr(pipeline, "published", None)
            if isinstance(published, PublishedSet) and pipeline.__module__ in row.home and name not in others:
                found.setdefault(published.name, pipeline)
    return MappingProxyType(dict(sorted(found.items())))


def load(pretrained_model_name_or_path: Any, **options: Any) -> Any:
    """Read a saved pipeline, whichever system's: a folder that `save_pretrained` wrote, or a hub name.

    Args:
        pretrained_model_name_or_path: The folder, or a hub name.
        options: As diffusers' `from_pretrained` takes them, such as `dtype`.

    Raises:
        OSError: If there is no such folder.
        UnknownSystem: If its pipeline is none of ours.
    """
    config = FolderPipeline.load_config(pretrained_model_name_or_path)
    known = {pipeline.__name__: pipeline for pipeline in pipelines().values()}
    name = config.get("_class_name")
    if name not in known:
        raise UnknownSystem(
            f"{pretrained_model_name_or_path} holds a {name}; referencenet reads {', '.join(sorted(known))}. Read "
            "others by diffusers' DiffusionPipeline.from_pretrained."
        )
    return known[name].from_pretrained(pretrained_model_name_or_path, **options)


def published_sets() -> Mapping[str, PublishedSet]:
    """Every published set of weight files that this package reads, by name.

    Raises:
        ValueError: If two have one name.
    """
    found: dict[str, PublishedSet] = {}
    for row in METHODS.values():
        if row.entry is None:
            continue
        for published in vars(_module_of(row)).values():
            if isinstance(published, PublishedSet):
                if found.setdefault(published.name, published) is not published:
                    raise ValueError(
                        f"the published set {published.name} is registered twice; give one of them another name."
                    )
    return MappingProxyType(found)


def find_by_manifest(name: str) -> list[tuple[PublishedSet, PublishedFile]]:
    """The rows whose key list is called so: one per component that the file fills."""
    rows = ((published, file) for published in published_sets().values() for file in published.files)
    return [(published, file) for published, file in rows if file.manifest == name]


def _module_of(row: Method) -> Any:
    return import_module(row.home)
