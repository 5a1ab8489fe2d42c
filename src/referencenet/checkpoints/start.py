"""What a training starts from, as a row: other people's weights, grafted onto a system's networks before it is trained.

A `PublishedSet` says which files there are and what builds the networks; a `Graft` for each network what fills it: the
base model's UNet, files, copies of what these brought, and what is new. As with released files nothing is silent: every
tensor that has no place must be listed with a reason, and so must be whatever stays new.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from referencenet.checkpoints.files import check_finite, read_state
from referencenet.checkpoints.keymap import CheckpointError, KeyMap
from referencenet.checkpoints.library import read_library_part
from referencenet.checkpoints.published import PublishedFile, PublishedSet, find_files, read_component
from referencenet.networks.neighbourhood import NeighbourTokens
from referencenet.telling import some


@dataclass(frozen=True, kw_only=True)
class Graft:
    """What a network is filled with, in this order; later tensors replace earlier ones.

    Attributes:
        base: What becomes of the keys of the base model's UNet; None: it brings nothing.
        left_out: Pattern of a key (by our names) that this network has no place for to the reason.
        copies: (pattern, replacement) of our keys: what was brought is also put under another name.
        widened: Patterns of weights whose further input channels begin at zero.
        new: Pattern of our keys to the reason why nothing brings them; they are as PyTorch draws them.
        zero: Patterns of new keys that begin at zero instead.
    """

    base: KeyMap | None = None
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    copies: Sequence[tuple[str, str]] = ()
    widened: Sequence[str] = ()
    new: Mapping[str, str] = field(default_factory=dict[str, str])
    zero: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Start:
    """A starting point.

    Attributes:
        published: Files, what builds the networks, and whole parts.
        grafts: Component to what fills it; others are read from files alone, as released ones are.
        base_folder: Where the base model lies below the folder of the files, unless it is given.
        base_source: Where to get it.
        fitted: From the networks' configuration to the files' rows, where keys depend on it.
    """

    published: PublishedSet
    grafts: Mapping[str, Graft]
    base_folder: str = "stable-diffusion-v1-5"
    base_source: str = "huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5"
    fitted: Callable[[Mapping[str, Any]], Sequence[PublishedFile]] | None = None

    @property
    def grows(self) -> bool:
        """Whether there must be a base model, which files alone do not replace."""
        return any(graft.base is not None for graft in self.grafts.values())

    def base_in(self, folder: Path, base: str | Path | None) -> str | Path | None:
        """The base model: as given, or in the folder of the files; None where it is not needed.

        Raises:
            FileNotFoundError: If it is neither.
        """
        if base is not None:
            return base
        place = folder / self.base_folder
        if (place / "unet" / "config.json").is_file():
            return place
        if self.grows:
            raise FileNotFoundError(
                f"{self.published.name} grows on a base model, not found in {place}; give its folder with --base, or "
                f"get it from {self.base_source}."
            )
        return None

    def is_in(self, folder: Path, base: str | Path | None) -> bool:
        """Whether a folder holds what is needed."""
        has_base = base is not None or (folder / self.base_folder / "unet" / "config.json").is_file()
        return (has_base or not self.grows) and (not self.published.files or self.published.is_in(folder))


def read_start(
    start: Start,
    folder: Path,
    base: str | Path | None = None,
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """All parts of a pipeline at its starting point.

    Args:
        start: The row.
        folder: Of the files.
        base: The base model's folder or hub name; None: it is in the folder.
        seed: Of what is new.
        tell: Told of each network what it is made of.

    Returns:
        Component to network or part.

    Raises:
        FileNotFoundError: If something is missing; says where to get it.
        CheckpointError: If a file does not fit.
    """
    published, base = start.published, start.base_in(folder, base)
    paths = find_files(published, folder) if published.files else {}
    found: dict[str, Any] = {
        name: part.read(name, None, folder, base, published.name) for name, part in published.further.items()
    }
    config = published.config_of(paths, base) or published.base_config
    rows = published.files if start.fitted is None else start.fitted(config)
    spatial: Mapping[str, Tensor] = {}
    if start.grows:
        assert base is not None
        spatial = read_library_part(UNet2DConditionModel, base, subfolder="unet").state_dict()
    for component in dict.fromkeys(row.component for row in rows if row.component not in start.grafts):
        found[component] = read_component(replace(published, files=tuple(rows)), component, paths, config)
        names = " and ".join(str(paths[row.path]) for row in rows if row.component == component)
        tell(f"{component}: {len(found[component].state_dict())} tensors of {names}")
    for component, graft in start.grafts.items():
        sources: list[tuple[str, dict[str, Tensor]]] = []
        if graft.base is not None:
            sources.append((f"{base}/unet", graft.base.convert(spatial)))
        for file in (row for row in rows if row.component == component):
            sources.append((str(paths[file.path]), _converted(file, paths[file.path])))
        with torch.random.fork_rng(devices=[]):  # what constructors draw before the seed decides
            network = published.build[component](config)
        new, told = graft_onto(network, sources, graft, component)
        draw(network, new, torch.Generator().manual_seed(seed))
        tell(f"{component}: {told}")
        found[component] = network.eval()
    return found


def _converted(file: PublishedFile, path: Path) -> dict[str, Tensor]:
    """A file's share under our names."""
    state = read_state(path)
    for check in file.checks:
        check(state, str(path))
    found = file.keymap.convert(state)
    check_finite(found, str(path))
    return found


def graft_onto(
    network: nn.Module, sources: Sequence[tuple[str, Mapping[str, Tensor]]], graft: Graft, name: str
) -> tuple[set[str], str]:
    """Fill a new network in place.

    Args:
        network: As built.
        sources: What each is called, and its tensors by our names; later ones replace earlier ones.
        graft: What else.
        name: Of the network, for errors.

    Returns:
        The keys of what is new and not zero, and in words what it is made of.

    Raises:
        CheckpointError: If a tensor has no place that is not listed, is of another shape, or stays new unlisted; or if
            a pattern of the graft matches nothing.
    """
    own, state, origin = network.state_dict(), dict[str, Tensor](), dict[str, str]()
    for source, tensors in sources:
        state |= tensors
        origin |= dict.fromkeys(tensors, source)
    used: set[str] = set()
    for pattern, replacement in graft.copies:
        for key in [key for key in state if re.fullmatch(pattern, key)]:
            copy = re.sub(pattern, replacement, key)
            state[copy], origin[copy] = state[key].clone(), f"copies of {origin[key]}"
            used.add(pattern)
    for key in [key for key in state if key in own and _matching(graft.widened, key)]:
        state[key] = F.pad(state[key], (0, 0, 0, 0, 0, own[key].shape[1] - state[key].shape[1]))
        used |= set(_matching(graft.widened, key))
    extra = {key: _matching(graft.left_out, key) for key in state if key not in own}
    unset = {key: _matching(graft.new, key) for key in own if key not in state}
    nowhere, bare = ([key for key, patterns in found.items() if not patterns] for found in (extra, unset))
    misshapen = [key for key, x in state.items() if key in own and own[key].shape != x.shape]
    if nowhere or bare or misshapen:
        raise CheckpointError(
            f"{name} cannot begin so: {len(nowhere)} tensors have no place: {some(nowhere)}; {len(bare)} would be left "
            f"unset: {some(bare)}; {len(misshapen)} are of another shape: {some(misshapen)}. Check that "
            f"{' and '.join(source for source, _ in sources) or 'the base'} belong to this starting point."
        )
    zeroed = [key for key in unset if _matching(graft.zero, key)]
    used |= {p for key in zeroed for p in _matching(graft.zero, key)} | {p for ps in unset.values() for p in ps}
    idle = {*(pattern for pattern, _ in graft.copies), *graft.widened, *graft.new, *graft.zero} - used
    if idle:
        raise CheckpointError(f"{name}: nothing matches {some(idle)}; the base is not the one of this starting point.")
    network.load_state_dict(
        {key: x for key, x in state.items() if key in own} | {key: torch.zeros_like(own[key]) for key in zeroed},
        strict=False,
    )  # completeness was checked above
    counts = Counter(origin[key] for key in state if key in own)
    told = [f"{count} tensors of {source}" for source, count in counts.items()]
    told += [f"{len(unset)} new"] if unset else []
    return unset.keys() - set(zeroed), ", ".join(told)


def draw(network: nn.Module, keys: Set[str], generator: torch.Generator) -> None:
    """Draw new layers as PyTorch does, from a generator; those that begin at zero stay so.

    Args:
        network: Whose layers.
        keys: Of what is new in it.
        generator: Decides the numbers.
    """
    for name, module in network.named_modules():
        if isinstance(module, NeighbourTokens):
            nn.init.normal_(module.offset, std=0.02, generator=generator)
        if not isinstance(module, nn.Linear | nn.Conv2d) or f"{name}.weight" not in keys or not module.weight.any():
            continue
        nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
        if module.bias is not None:
            bound = module.weight[0].numel() ** -0.5
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)


def _matching(patterns: Sequence[str] | Mapping[str, str], key: str) -> list[str]:
    """Those patterns that match the whole key."""
    return [pattern for pattern in patterns if re.fullmatch(pattern, key)]
