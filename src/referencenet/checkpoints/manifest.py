"""Key lists of published files at full size, and the proof that ours fit them: on the meta device, without weights.

A manifest is `NAME.json.gz`: the file's name and every key with its shape, taken from the published classes.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.load import load_published
from referencenet.checkpoints.published import PublishedFile, PublishedSet, share_of
from referencenet.inputs import regular_file

ENDING = ".json.gz"
KEY_LISTS = Path(__file__).parent / "key_lists"
"""Those of the released files that have a row here."""
MAX_LIST = 2**24  # bytes: those of the largest releases are below a million


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A key list.

    Attributes:
        path: Of the list.
        file: The published file.
        keys: Key to a tensor without contents.
    """

    path: Path
    file: str
    keys: dict[str, Tensor]

    @property
    def name(self) -> str:
        """The list's name, without folder and ending."""
        return self.path.name.removesuffix(ENDING)


@dataclass(frozen=True, kw_only=True)
class ManifestResult:
    """What became of a key list.

    Attributes:
        name: Of the list.
        component: What it fills; empty if no row is known.
        num_keys: Of the list.
        num_ignored: Keys left out, for the reasons of the row.
        num_filled: Tensors of the component that were filled.
        error: What does not fit; None if everything does.
        is_readable: Whether the list itself could be read and has a row.
    """

    name: str
    component: str = ""
    num_keys: int = 0
    num_ignored: int = 0
    num_filled: int = 0
    error: str | None = None
    is_readable: bool = True

    @property
    def passed(self) -> bool:
        """Whether all keys are mapped, shapes are equal and nothing is left unset."""
        return self.error is None


def read_manifest(path: str | Path) -> Manifest:
    """Read a key list.

    Raises:
        CheckpointError: If it is none.
    """
    path = Path(path)
    try:
        regular_file(path, "key list")
        with gzip.open(path) as file:
            text = file.read(MAX_LIST + 1)
        if len(text) > MAX_LIST:
            raise ValueError(f"it unpacks to more than {MAX_LIST} bytes")
        content: Any = json.loads(text)
        shapes = cast(dict[str, list[int]], content["keys"])
        keys = {key: torch.empty([int(size) for size in shape], device="meta") for key, shape in shapes.items()}
        return Manifest(path=path, file=str(content["file"]), keys=keys)
    except Exception as error:  # a damaged file fails in every way there is
        raise CheckpointError(
            f"{path} is not a key list ({type(error).__name__}: {error}); expected NAME{ENDING} with `file` and `keys`."
        ) from error


def verify_manifest(manifest: Manifest, published: PublishedSet, file: PublishedFile) -> ManifestResult:
    """Map a key list to the component's network at full size.

    Args:
        manifest: The key list.
        published: The set that the file belongs to.
        file: Its row.
    """
    with torch.device("meta"):
        network = published.build[file.component](published.base_config)
    num_ignored = sum(file.keymap.reason_ignored(key) is not None for key in manifest.keys)
    filled: set[str] = set()
    error = None
    try:
        filled = load_published(network, manifest.keys, file.keymap, source=manifest.name, partial=True)
        missing = sorted(share_of(network, file) - filled)
        if missing:
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            error = f"{len(missing)} tensors would be left unset: {', '.join(missing[:10])}{more}"
    except CheckpointError as problem:
        error = str(problem)
    return ManifestResult(
        name=manifest.name,
        component=f"{published.name} {file.component}",
        num_keys=len(manifest.keys),
        num_ignored=num_ignored,
        num_filled=len(filled),
        error=error,
    )
