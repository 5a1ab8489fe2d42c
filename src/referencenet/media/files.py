"""Results on the disk: places that are checked before any work, files that are there whole or not at all, and locks.

A write goes to a temporary name in the same folder and is renamed when it is complete, so that a crash or an
interrupt never leaves half a file behind, and a reader never sees one. A lock keeps a second process from a result
that one is writing; it ends with its process, however that ends.
"""

import json
import os
import re
import uuid
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from referencenet.version import __version__

MAX_SETTINGS = 2**20  # bytes: what is larger is not a file of settings
LONGEST_NAME = 255 - len(f".{'0' * 12}-.json")  # bytes: systems take 255, and temporary names are longer


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Generator[Path]:
    """Give a temporary path to write to; it takes the place of `path` when the block ends without an exception.

    Args:
        path: Where the file shall be. Missing folders are made.

    Yields:
        A path in the same folder with the same ending, which does not exist yet.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:12]}-{target.name}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: Path, *, folder: bool = False) -> None:
    """Make sure that a result can be written, before anything is made of it.

    Args:
        path: Of the file or folder to be.
        folder: Whether it is to be a folder.

    Raises:
        ValueError: If something of another kind is there, or the name is too long.
        OSError: If its folder may not be written to.
    """
    if len(path.name.encode()) > LONGEST_NAME:
        raise ValueError(f"the name {path.name[:40]}... is too long; give one of at most {LONGEST_NAME} bytes.")
    if folder and path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, and a folder is to be written; give another --out, or an ending.")
    if not folder and path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file in it, as in {path / 'result'}{path.suffix}.")
    if not folder and path.exists() and not path.is_file():
        raise ValueError(f"{path} is a pipe or a device; give the name of a file.")
    above = path if folder and path.is_dir() else path.absolute().parent
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise ValueError(f"{path} cannot be written: {above} is a file, not a folder; give another place.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"{path} cannot be written: the folder {above} may not be written to; give another one.")


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Keep other processes from a result while the block runs.

    Args:
        path: Of the result; the lock lies beside it.

    Raises:
        ValueError: If another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.lock")
    lock = FileLock(beside)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ValueError(
            f"another process is writing {path}; wait until it has ended, or give another --out."
        ) from error
    try:
        yield
    finally:
        beside.unlink(missing_ok=True)  # while it is held: whoever comes then makes a new one
        lock.release()


def new_run(folder: Path) -> Path:
    """Make a folder for a run in the folder of all runs: 0001, 0002 and so on, behind the last that is there.

    Two processes never get the same one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        taken = [int(place.name) for place in folder.iterdir() if re.fullmatch(r"\d{4,9}", place.name)]
        run = folder / f"{max(taken, default=0) + 1:04d}"
        try:
            run.mkdir()
        except FileExistsError:  # another process was quicker
            continue
        return run


def results_in(run: Path) -> list[Path]:
    """What a run of `refnet generate` wrote into its folder, and another one there replaces; nothing else in it."""
    pictures = [file for file in run.glob("seed-*.png") if re.fullmatch(r"seed-\d+", file.stem)]
    return [*sorted(pictures), *(file for name in ("sheet.png", "settings.json") if (file := run / name).is_file())]


def paths_of(out: Path, count: int) -> list[Path]:
    """Where pictures go: `out`, or of several out-1, out-2 and so on."""
    return [out.with_stem(f"{out.stem}-{i + 1}") for i in range(count)] if count > 1 else [out]


def refuse_taken(paths: Iterable[Path], overwrite: bool) -> None:
    """Make sure that no earlier result is replaced unless that is wanted.

    Raises:
        FileExistsError: If one is there.
    """
    taken = [path for path in paths if path.exists()]
    if taken and not overwrite:
        raise FileExistsError(
            f"{taken[0]} is there already{f', and {len(taken) - 1} more' if len(taken) > 1 else ''}; give another "
            "--out, or --overwrite to replace what is there."
        )


def settings_path(path: Path) -> Path:
    """Where the settings of a result stand: beside it."""
    return path.with_name(f"{path.name}.json")


def check_settings_place(path: Path) -> None:
    """Make sure that no file of somebody's stands where the settings of a result will.

    Raises:
        FileExistsError: If one does.
    """
    beside = settings_path(path)
    if beside.exists() and not _are_settings(beside):
        raise FileExistsError(f"{beside} was not written by refnet, and those of {path.name} would replace it; give "
                              "another --out.")  # fmt: skip


def forget_settings(path: Path) -> None:
    """Take away the settings of an older result, before another takes its place."""
    if _are_settings(settings_path(path)):
        settings_path(path).unlink()


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write what decides a result beside it, and by which version; what was left open, None, is left out.

    Args:
        path: Of the result.
        settings: By name.
    """
    document = {name: value for name, value in settings.items() if value is not None} | {"referencenet": __version__}
    with written_whole(settings_path(path)) as file:
        file.write_text(json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def _are_settings(file: Path) -> bool:
    """Whether a file is one that `write_settings` wrote."""
    if not file.is_file() or file.stat().st_size > MAX_SETTINGS:
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "referencenet" in found
