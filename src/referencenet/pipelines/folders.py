"""Pipelines as files: released ones, which are read strictly, and saved folders that say whose they are."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline

from referencenet.checkpoints.files import first_line
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.library import check_networks, local_folder, read_index, read_networks
from referencenet.checkpoints.published import PublishedSet, find_files, read_component, snapshot_of
from referencenet.pipelines.spec import Spec

FINDS_CLASS = '''"""Whose folder this is: DiffusionPipeline.from_pretrained(folder, trust_remote_code=True) asks here.

Needs the package referencenet.
"""

from {module} import {name} as {name}
'''


class FolderPipeline(DiffusionPipeline):
    """A pipeline that reads and writes files."""

    spec: ClassVar[Spec]
    published: ClassVar[PublishedSet]
    renamed: ClassVar[Mapping[str, str]] = {}
    """Components of folders that earlier versions saved, to their names today."""

    def save_config(self, save_directory: str | PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write `model_index.json`, and a `pipeline.py` that it names: so diffusers finds the class.

        `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)` and `referencenet.load(folder)` read such a
        folder without being told whose it is.
        """
        kind, folder = type(self), Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pipeline.py").write_text(
            FINDS_CLASS.format(module=kind.__module__, name=kind.__name__), encoding="utf-8"
        )
        super().save_config(save_directory, push_to_hub, **kwargs)

    def to_json_string(self) -> str:
        """The configuration as it is saved, with where its class is found."""
        config = json.loads(super().to_json_string())
        return json.dumps(config | {"_class_name": ["pipeline", type(self).__name__]}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def load_config(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a folder's configuration; whose it is, the caller has said, so no code of the folder is asked."""
        if (folder := Path(str(pretrained_model_name_or_path))).is_dir() and (folder / "model_index.json").is_file():
            read_index(folder)
        loaded = super().load_config(pretrained_model_name_or_path, *args, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        if isinstance(config.get("_class_name"), list):
            config["_class_name"] = config["_class_name"][-1]
        return loaded

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Any:
        """Read a saved folder, also one whose components an earlier version called by other names.

        Args:
            pretrained_model_name_or_path: The folder, or a hub name.
            options: As diffusers' pipelines take them.

        Raises:
            CheckpointError: If a network lacks a tensor, or has one of another shape or with what is no number.
            ValueError: If the folder holds another system's pipeline.
        """
        try:
            place = local_folder(cls, pretrained_model_name_or_path, options)
        except (OSError, CheckpointError):
            raise
        except Exception as error:  # whatever a library says of what the hub has
            said = first_line(error)[:200]
            raise CheckpointError(f"{pretrained_model_name_or_path} cannot be read ({said}); get it again.") from error
        index = place / "model_index.json"
        parts = read_index(index.parent) if index.is_file() else {}
        cls._refuse_another(index.parent, parts, options)
        if not parts.keys() & cls.renamed.keys():
            return cls._read(place, options)
        with TemporaryDirectory() as folder:
            for place in index.parent.iterdir():
                if place != index:
                    (Path(folder) / cls.renamed.get(place.name, place.name)).symlink_to(place.resolve())
            named = {cls.renamed.get(name, name): part for name, part in parts.items()}
            (Path(folder) / index.name).write_text(json.dumps(named), encoding="utf-8")
            return cls._read(folder, options)

    @classmethod
    def _read(cls, folder: Any, options: Mapping[str, Any]) -> Any:
        """Read a folder or a hub name, every network strictly."""
        has_index = (Path(folder) / "model_index.json").is_file()
        networks = read_networks(Path(folder), options) if has_index else {}
        try:
            pipe: Any = super().from_pretrained(folder, **options, **networks)
        except (OSError, CheckpointError):
            raise
        except Exception as error:  # whatever a library says of a damaged folder
            raise CheckpointError(f"{folder} cannot be read ({first_line(error)[:200]}); get it again.") from error
        check_networks({name: part for name, part in pipe.components.items() if name not in networks}, str(folder))
        return pipe

    @classmethod
    def _refuse_another(cls, folder: Path, parts: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Refuse a folder whose parts are not those of this pipeline, before any is read."""
        saved = parts.get("_class_name", cls.__name__)
        saved = saved[-1] if isinstance(saved, list) else saved
        expected, _ = cls._get_signature_keys(cls)
        there = {cls.renamed.get(name, name) for name in parts} | set(given)
        lacking = sorted(set(expected) - there - set(cls._optional_components))
        if parts and saved != cls.__name__ and lacking:
            raise ValueError(
                f"{folder} holds a {saved}, not a {cls.__name__}: it has no {', '.join(lacking)}; give another folder, "
                "or let referencenet.load read it as what it is."
            )

    @classmethod
    def from_published(
        cls, files: str | Path | Iterable[str | Path], *, base: str | Path | None = None,
        dtype: torch.dtype | None = None, torch_dtype: torch.dtype | None = None, **parts: Any,
    ) -> Any:  # fmt: skip
        """Read the released files, strictly.

        Args:
            files: The folder that holds them, or the files one by one.
            base: A folder or hub name of the base model in diffusers' layout: its UNet's configuration, and the parts
                that the release leaves out.
            dtype: Of all networks; None: as in the files.
            torch_dtype: The former name of `dtype`.
            parts: Components, or their folders, in place of those that are found.

        Raises:
            FileNotFoundError: If a file is missing; says where to get it.
            CheckpointError: If a file does not fit, or holds values that are not finite.
        """
        if torch_dtype is not None:
            warnings.warn("torch_dtype is called dtype now.", FutureWarning, stacklevel=2)
        published = cls.published
        paths = find_files(published, files)
        folder = snapshot_of(Path(files)) if isinstance(files, str | Path) else None
        found: dict[str, Any] = {}
        for name, part in published.further.items():  # before the large files: it is soon known whether all are there
            if name in parts or not published.fills(name, paths):
                found[name] = part.read(name, parts.pop(name, None), folder, base, published.name)
        config = published.config_of(paths, base)
        for name in published.components:
            if name in parts:
                found[name] = parts.pop(name)
            elif name not in found:
                found[name] = read_component(published, name, paths, config, base)
        if "scheduler" not in {*found, *parts}:
            found["scheduler"] = cls.spec.scheduler()
        pipe = cls(**found, **parts)
        check_networks(parts, "what was given")
        dtype = dtype or torch_dtype
        return pipe if dtype is None else pipe.to(dtype=dtype)
