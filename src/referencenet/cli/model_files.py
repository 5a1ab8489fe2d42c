"""`refnet models`: the small networks that `refnet preprocess` runs."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from referencenet.cli.checks import check_there
from referencenet.cli.console import note, say, tell
from referencenet.preprocess.model_files import WHEEL, WHEEL_TAGS, are_fetched, default_folder, unpack

MODELS_HELP = "Holds the fetched networks; by default REFNET_MODELS, or a folder in the user's cache."

app = typer.Typer(add_completion=False)


@app.callback()
def models() -> None:
    """Get the small networks that `refnet preprocess` runs."""


@app.command()
def fetch(
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", show_default="REFNET_MODELS, or the user's cache",
                                  help="Where they go.")
    ] = None,
    wheel: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"The wheel of {WHEEL} for cp311, if it is here already.")
    ] = None,
) -> None:  # fmt: skip
    """Take MediaPipe's networks for faces, bodies and hands (Apache-2.0, 17 MB) out of its wheel, and check their sums.

    The wheel (36 MB) is downloaded by pip and read as an archive; nothing is installed. Try: `refnet models fetch`
    """
    if wheel is not None:
        check_there(wheel, "--wheel")
    folder = to or default_folder()
    if are_fetched(folder):
        note(f"{folder} holds all networks already, with the right sums.")
    elif wheel is not None:
        unpack(wheel, folder)
    else:
        with TemporaryDirectory() as temporary:
            unpack(download(Path(temporary)), folder)
    say(str(folder))


def download(folder: Path) -> Path:
    """The wheel, downloaded by pip.

    Raises:
        OSError: If pip cannot get it; says what pip said.
    """
    tell(f"downloading the wheel of {WHEEL} (36 MB)")
    pip = [sys.executable, "-m", "pip", "download", WHEEL, "--no-deps", "--only-binary=:all:", *WHEEL_TAGS]
    done = subprocess.run([*pip, "--quiet", "--dest", str(folder)], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()[-300:]]
        raise OSError(
            f"pip could not download {WHEEL} ({said[-1]}); get its cp311 wheel and give it with --wheel FILE."
        )
    return wheels[0]
