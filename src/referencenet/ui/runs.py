"""Results on the disk: a folder for each job, there whole or not at all, with its settings and what was given."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from referencenet.inputs import read_json
from referencenet.media.files import check_place, locked
from referencenet.media.films import Film
from referencenet.media.sheets import write_image
from referencenet.version import __version__

NAME = re.compile(r"\d{8}-\d{6}-[a-z]+-[0-9a-f]{16}")
"""Of a run: when, what, and a number that nobody guesses, so that one browser does not see another's."""
UNFINISHED = ".unfinished-"
SETTINGS, PREVIEW, GIVEN = "settings.json", "preview.png", "given"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished job.

    Attributes:
        name: Of its folder.
        files: Pictures, or a film.
        preview: The first picture, or the film's first frame.
        settings: What decided it.
    """

    name: str
    files: list[Path]
    preview: Path
    settings: dict[str, Any]


class Runs:
    """The folder of all results, which belongs to one page at a time.

    Args:
        folder: Made if it is missing.

    Raises:
        ValueError: If another page writes there, or it is no folder.
        OSError: If it may not be written to.
    """

    def __init__(self, folder: Path) -> None:
        check_place(folder, folder=True)
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            held.enter_context(locked(self.folder / "results"))
            self._held = held.pop_all()
        self._sweep()

    def close(self) -> None:
        """Take away what is unfinished, and let others write there."""
        self._sweep()
        self._held.close()

    def make(
        self, task: str, settings: Mapping[str, Any], given: Mapping[str, Path], draw: Callable[[Path], Iterable[Path]]
    ) -> Run:
        """Draw into a folder, which takes its name when all is there.

        Args:
            task: Its tab.
            settings: What decides the result.
            given: Files that were given, by name; copies of them stand beside the result.
            draw: With the folder: what was written there.
        """
        name = f"{datetime.now():%Y%m%d-%H%M%S}-{task}-{secrets.token_hex(8)}"
        unfinished = self.folder / f"{UNFINISHED}{name}"
        unfinished.mkdir()
        try:
            files = [path.name for path in draw(unfinished)]
            first = unfinished / files[0]
            if first.suffix == ".png":
                shutil.copyfile(first, unfinished / PREVIEW)
            else:
                write_image(next(iter(Film(first))), unfinished / PREVIEW)
            (unfinished / GIVEN).mkdir()
            copies = {key: f"{GIVEN}/{key}{path.suffix.lower()}" for key, path in given.items()}
            for key, path in given.items():
                shutil.copyfile(path, unfinished / copies[key])
            known = {key: value for key, value in settings.items() if value not in (None, "")}
            document = {"task": task, **known, "given": copies, "files": files, "referencenet": __version__}
            text = json.dumps(document, indent=1, ensure_ascii=False, default=str)
            (unfinished / SETTINGS).write_text(f"{text}\n", encoding="utf-8")
            unfinished.rename(self.folder / name)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return self.find(name)

    def find(self, name: str) -> Run:
        """A finished run.

        Raises:
            ValueError: If the name is none of a run.
            FileNotFoundError: If it is not there any more.
        """
        if not NAME.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is not a name of a result.")
        folder = self.folder / name
        settings = read_json(folder / SETTINGS, "the settings of a result")
        files = [folder / file for file in settings["files"]]
        return Run(name=name, files=files, preview=folder / PREVIEW, settings=settings)

    def known(self, names: Iterable[Any]) -> list[Run]:
        """Those of some names whose runs are still there."""
        there = [str(name) for name in names if NAME.fullmatch(str(name)) and (self.folder / str(name)).is_dir()]
        return [self.find(name) for name in there]

    def _sweep(self) -> None:
        for folder in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(folder, ignore_errors=True)
