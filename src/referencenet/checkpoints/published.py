"""A published set of weight files as a row: which file fills which component, and by which key map.

Rows stand beside the code of their system; whatever reads weights (pipelines, conversion, the check of full-size key
lists) goes by the row. A component may come from several files: each has its share, and later files replace what
earlier ones set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from referencenet.checkpoints.containers import container_of
from referencenet.checkpoints.files import ENDINGS, check_finite, read_state
from referencenet.checkpoints.keymap import CheckpointError, KeyMap
from referencenet.checkpoints.library import read_configuration, read_library_part
from referencenet.checkpoints.load import load_published
from referencenet.networks.layout import TINY_SD15
from referencenet.telling import some

ADDED = r"(?:[-_](?:step[-_]?)?\d+)?(?:\.(?:fp16|bf16|fp32|ema))?(?:-\d{5}-of-\d{5})?"
"""What people add to a weight file's name: its step, its precision, which shard it is."""

Check = Callable[[Mapping[str, Tensor], str], None]
Build = Callable[[Mapping[str, Any]], nn.Module]

CONFIGURATIONS = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "scheduler_config.json")
"""One of these lies in the folder of every part of diffusers and transformers."""


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """One weight file of a set.

    Attributes:
        path: Where the publisher has it, inside the set's folder.
        component: The pipeline's component that it fills.
        keymap: What becomes of its keys.
        share: Regular expression of our keys that this file must bring; other files bring the rest of the component.
        base: What becomes of the keys of the base model's `unet`, which fills what the file leaves out; None: nothing.
        checks: Further checks of a state dict, called with it and the file's name.
        manifest: Name of the key list of this file at full size, if there is one.
    """

    path: str
    component: str
    keymap: KeyMap = field(default_factory=KeyMap)
    share: str = ".*"
    base: KeyMap | None = None
    checks: tuple[Check, ...] = ()
    manifest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a pipeline needs beside the released files, in its own library's layout.

    Attributes:
        kind: Its class, of diffusers or transformers.
        source: Where to get it.
        folder: Below the folder of the files; None: as the component is called.
        in_base: Whether the base model's folder has it as well, under the component's name.
        default: Makes it where no file is found; None: it must be found.
    """

    kind: Any
    source: str
    folder: str | None = None
    in_base: bool = False
    default: Callable[[], Any] | None = None

    def read(self, name: str, given: Any, folder: Path | None, base: str | Path | None, system: str) -> Any:
        """The part: as given, from a given path, from the files' folder, or from the base.

        Args:
            name: Of the component.
            given: The part or its folder; None: it is looked for.
            folder: Of the released files.
            base: The base model's folder or hub name.
            system: For errors.

        Raises:
            FileNotFoundError: If it is nowhere; says where to get it.
            CheckpointError: If a tensor is missing or not finite.
        """
        if given is not None and not isinstance(given, str | Path):
            return given
        places = [Path(given)] if given is not None else [folder / (self.folder or name)] if folder is not None else []
        for place in places:
            if any((place / name).is_file() for name in CONFIGURATIONS):
                return read_library_part(self.kind, place)
        if given is None and self.in_base and base is not None:
            return read_library_part(self.kind, base, subfolder=name)
        if given is None and self.default is not None:
            return self.default()
        where = f"at {places[0]}" if places else "since no folder was given"
        raise FileNotFoundError(
            f"{system} also needs {self.folder or name} (a folder with configuration and weights), not found {where}"
            f"{' nor in a base, since none was given (base=...)' if self.in_base and base is None else ''}. "
            f"Get it from {self.source}."
        )


@dataclass(frozen=True, kw_only=True)
class PublishedSet:
    """The files of one released model.

    Attributes:
        name: `system.tag`.
        source: Where to get the files.
        licence: Of the weights, as its publisher states it.
        paper: arXiv number.
        files: In the order in which they are read.
        build: Component to what makes its network from a configuration of the base model.
        base_config: The base model's configuration at full size.
        tiny_config: A configuration for `build` that makes narrow networks, to try an installation.
        further: What else the pipeline needs, in diffusers' or transformers' own layout. A component that files fill
            as well is read from them where they are there.
        notice: What to know before the files are asked for, such as that there are no weights; it ends with what the
            files are for.
        configure: From the paths of the files and the base to the configuration that `build` takes; None: the base's
            `unet/config.json` if a base is given, else `base_config`.
    """

    name: str
    source: str
    licence: str
    paper: str | None
    files: tuple[PublishedFile, ...]
    build: Mapping[str, Build]
    base_config: Mapping[str, Any]
    tiny_config: Mapping[str, Any] = field(default_factory=lambda: TINY_SD15)
    further: Mapping[str, Part] = field(default_factory=dict[str, Part])
    notice: str = "needs its released files; give their folder with --checkpoint."
    configure: Callable[[Mapping[str, Path], str | Path | None], Mapping[str, Any]] | None = None

    def config_of(self, paths: Mapping[str, Path], base: str | Path | None) -> Mapping[str, Any] | None:
        """The configuration for `build`, of files on disk and a base model's folder or name; None: at full size."""
        if self.configure is not None:
            return self.configure(paths, base)
        if base is not None and (place := Path(base) / "unet" / "config.json").is_file():
            return read_configuration(place)
        return None if base is None else UNet2DConditionModel.load_config(str(base), subfolder="unet")

    @property
    def components(self) -> list[str]:
        """Components that the files fill, in order."""
        return list(dict.fromkeys(file.component for file in self.files))

    def files_of(self, component: str) -> list[PublishedFile]:
        """The files that fill a component."""
        return [file for file in self.files if file.component == component]

    def is_in(self, folder: Path) -> bool:
        """Whether a folder holds a file by the name of each that the set needs."""
        needed = {file.path for file in self.files if file.component not in self.further}
        return bool(needed) and all(_in_folder(folder, path) is not None for path in needed)

    def fills(self, component: str, paths: Mapping[str, Path]) -> bool:
        """Whether all files of a component are among those on disk (published path to path)."""
        files = self.files_of(component)
        return bool(files) and all(file.path in paths for file in files)


def load_component(
    published: PublishedSet,
    component: str,
    states: Sequence[tuple[PublishedFile, Mapping[str, Tensor], str]],
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a component from its files' state dicts.

    Args:
        published: The set.
        component: Which.
        states: Per file its row, its state dict and what to call it in errors.
        config: Of the base model; None: at full size.

    Returns:
        The network; its tensors are those of the states.

    Raises:
        CheckpointError: If a file does not bring its share, brings what the network does not have, or a share is
        missing.
    """
    with torch.device("meta"):
        network = published.build[component](published.base_config if config is None else config)
    filled: set[str] = set()
    for file, state, source in states:
        for check in file.checks:
            check(state, source)
        brought = load_published(network, state, file.keymap, source=source, partial=True)
        missing = share_of(network, file) - brought
        if missing:
            raise CheckpointError(
                f"{source} lacks {len(missing)} of its keys: {some(missing)}. Check that it is {file.path}."
            )
        filled |= brought
    unset = set(network.state_dict()) - filled
    if unset:
        files = published.files_of(component)
        paths = ", ".join(file.path for file in files)
        more = ", or base=..., whose unet fills the rest" if any(file.base is not None for file in files) else ""
        raise CheckpointError(
            f"{len(unset)} tensors of {component} would be left unset: {some(unset)}. It is made of {paths}; give "
            f"all of them{more}."
        )
    return network.eval()


def share_of(network: nn.Module, file: PublishedFile) -> set[str]:
    """The keys of a network that a file must bring."""
    return {key for key in network.state_dict() if re.fullmatch(file.share, key)}


def find_files(published: PublishedSet, where: str | Path | Iterable[str | Path]) -> dict[str, Path]:
    """Find the files of a set.

    Args:
        published: The set.
        where: Its folder, or the files one by one.

    Returns:
        Published path to the path on this disk; of components that may come from elsewhere (`further`) what is there.

    Raises:
        FileNotFoundError: If files are missing; says which, and where to get them.
        CheckpointError: If a file is given that belongs to no row, or is not a weight file.
    """
    given = [where] if isinstance(where, str | Path) else list(where)
    folders = [snapshot_of(Path(path)) for path in given if Path(path).is_dir()]
    loose = [Path(path) for path in given if not Path(path).is_dir()]
    found = {
        file.path: path for file in published.files for folder in folders if (path := _in_folder(folder, file.path))
    }
    for path in loose:
        rows = [file.path for file in published.files if stem_of(Path(file.path)) == stem_of(path) != ""]
        rows = [row for row in rows if Path(row).parent.name == path.parent.name] or rows
        if len(set(rows)) > 1:
            raise CheckpointError(f"{path} could be {' or '.join(sorted(set(rows)))}; give the folder that holds them.")
        if not rows:
            raise CheckpointError(
                f"{path} is not a file of {published.name}; its files are "
                f"{', '.join(dict.fromkeys(file.path for file in published.files))}."
            )
        found[rows[0]] = path
    needed = [file.path for file in published.files if file.component not in published.further]
    missing = [path for path in dict.fromkeys(needed) if path not in found]
    missing += [path for path in found if not found[path].is_file()]
    if missing:
        raise FileNotFoundError(
            f"{published.name} needs {', '.join(missing)}, not found in "
            f"{', '.join(map(str, given)) or 'nothing given'}. "
            f"Get the files from {published.source} (licence: {published.licence})."
        )
    for path in found.values():  # before anything large is read
        container_of(path)
    return found


def snapshot_of(folder: Path) -> Path:
    """A folder, or the newest snapshot in it where it is one of the hub's cache."""
    places = folder / "snapshots"
    found = [place for place in places.iterdir() if place.is_dir()] if places.is_dir() else []
    return max(found, key=lambda place: place.stat().st_mtime) if found else folder


def _in_folder(folder: Path, published: str) -> Path | None:
    """A published file in a folder: under its name, or the only one that differs from it in ending, step or precision.

    Raises:
        CheckpointError: If several differ so.
    """
    path = folder / published
    if path.is_file():
        return path
    there = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    others = {_without_shard(other): other for other in there if other.is_file() and stem_of(other) == stem_of(path)}
    if len(others) > 1:
        raise CheckpointError(
            f"{published} could be {' or '.join(map(str, others.values()))}; give the file itself, or leave one."
        )
    return next(iter(others.values()), None)


def stem_of(path: Path) -> str:
    """A weight file's name without what people add to it: ending, step number, precision, shard; "" of other files."""
    match = re.fullmatch(rf"(.+?){ADDED}(?:{'|'.join(map(re.escape, ENDINGS))})", path.name)
    return match[1] if match else ""


def _without_shard(path: Path) -> str:
    return re.sub(r"-\d{5}-of-\d{5}", "", path.name)


def read_component(
    published: PublishedSet,
    component: str,
    paths: Mapping[str, Path],
    config: Mapping[str, Any] | None = None,
    base: str | Path | None = None,
) -> nn.Module:
    """Build a component from files on disk; tensors stay mapped to the files until they are used.

    Args:
        published: The set.
        component: Which.
        paths: As `find_files` gives them.
        config: Of the base model; None: at full size.
        base: Folder or hub name of the base model, whose `unet` fills what a file with a `base` leaves out.
    """
    states: list[tuple[PublishedFile, Mapping[str, Tensor], str]] = []
    for file in published.files_of(component):
        state = read_state(paths[file.path])
        read = {key: tensor for key, tensor in state.items() if file.keymap.reason_ignored(key) is None}
        check_finite(read, str(paths[file.path]))
        is_whole = any(file.keymap.name(key) == "conv_in.weight" for key in state)
        if file.base is not None and base is not None and not is_whole:  # first: the file replaces what the base sets
            row = PublishedFile(path=f"{base}/unet", component=component, keymap=file.base, share="conv_in.*")
            unet = read_library_part(UNet2DConditionModel, base, subfolder="unet")
            states.append((row, unet.state_dict(), row.path))
        states.append((file, state, str(paths[file.path])))
    return load_component(published, component, states, config)
