"""What a job depends on, as one hash: its settings, the contents of every file that they name, and the version.

A file that was moved or renamed is still the same; one that was changed is another. Weights are files like pictures:
a folder counts with all that lies in it, a name on the hub with the commit that lies in the local cache.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from referencenet.bases.names import BUILTIN
from referencenet.inputs import regular_file
from referencenet.later import later
from referencenet.version import __version__

if TYPE_CHECKING:
    import huggingface_hub as hub

    import referencenet.builtin.load as builtin
    from referencenet.checkpoints import published
else:
    hub, builtin, published = later(
        "huggingface_hub", "referencenet.builtin.load", "referencenet.checkpoints.published"
    )

ADDRESS = 24  # hexadecimal digits: 96 bits


class Contents:
    """Hashes files and folders, each once."""

    def __init__(self) -> None:
        self._found: dict[Path, str] = {}

    def address(self, command: str, result: str, values: Mapping[str, Any]) -> str:
        """The address of a job's result, the same wherever and whenever it is asked for.

        Args:
            command: Of the job.
            result: Name of its file; the ending chooses the format.
            values: Of its options, by name.
        """
        what = {name: self._meant(name, value) for name, value in sorted(values.items())}
        text = json.dumps([__version__, command, result, what], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:ADDRESS]

    def of(self, path: Path) -> str:
        """The hash of a file's bytes, or of all files in a folder with their places in it."""
        path = path.resolve()
        if path not in self._found:
            self._found[path] = self._folder(path) if path.is_dir() else self._file(path)
        return self._found[path]

    def _file(self, path: Path) -> str:
        with regular_file(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _folder(self, folder: Path) -> str:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        listed = [[str(path.relative_to(folder)), self._file(path)] for path in files]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    def _meant(self, name: str, value: Any) -> Any:
        """What a value stands for: of a path what lies there, of a number or a word itself."""
        if isinstance(value, list | tuple):
            return [self._meant(name, each) for each in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        text = str(value)
        if name.endswith("prompt"):
            return text
        kind, sign, rest = text.rpartition("=")  # pose=skeleton.png
        return kind + sign + self._named(rest)

    def _named(self, text: str) -> str:
        """The contents of what a text names, or the text."""
        if text == BUILTIN:
            return self.of(builtin.WEIGHTS)
        for name, scale in ((text, ""), text.rpartition(":")[::2]):  # style.safetensors:0.8
            path = _there(name)
            if path is not None:
                return f"{self.of(published.snapshot_of(path))}:{scale}"
        return f"{text}@{_commit(text)}" if re.fullmatch(r"[\w.-]+/[\w.-]+", text) else text


def _there(name: str) -> Path | None:
    """The file or folder of a name; None if there is none."""
    try:
        path = Path(name).expanduser()
        return path if name and (path.is_file() or path.is_dir()) else None
    except (OSError, ValueError, RuntimeError):  # no name that a system takes, or no such user
        return None


def _commit(name: str) -> str:
    """The commit of a model of the hub that lies in the local cache; "" if none does."""
    found = [hub.try_to_load_from_cache(name, index) for index in ("model_index.json", "config.json")]
    return next((Path(file).parent.name for file in found if isinstance(file, str)), "")
