"""Files that are there whole or not at all.

A write goes to a temporary name in the same folder and is renamed when it is complete, so that a crash or an
interrupt never leaves half a file behind, and a reader never sees one.
"""

import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


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
