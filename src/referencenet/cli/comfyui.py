"""`refnet comfyui`: nodes for ComfyUI."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from referencenet.cli.console import tell
from referencenet.version import __version__

PACK = Path(__file__).parent.parent / "comfyui" / "pack"
NAME = "referencenet"

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def comfyui() -> None:
    """Nodes for ComfyUI."""


@app.command()
def install(
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="ComfyUI's custom_nodes.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older one.")] = False,
) -> None:
    """Copy the nodes' folder, with three example workflows, into ComfyUI's `custom_nodes`.

    The nodes themselves come from this package, which must be installed in ComfyUI's Python.
    Try: `refnet comfyui install --to ComfyUI/custom_nodes`
    """
    to = to.expanduser()
    if not to.is_dir():
        raise NotADirectoryError(f"--to {to}: there is no such folder; give the custom_nodes folder of ComfyUI.")
    folder = to / NAME
    if folder.exists() and not overwrite:
        raise FileExistsError(
            f"{folder} is there already; --overwrite puts this one (version {__version__}) in its place."
        )
    with TemporaryDirectory(dir=to, prefix=f".{NAME}-") as scratch:  # beside it, so that moving is one step
        made = Path(scratch) / NAME
        shutil.copytree(PACK, made, ignore=shutil.ignore_patterns("__pycache__"))
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        made.rename(folder)
    Console(highlight=False).print(str(folder), soft_wrap=True)
    tell("Start ComfyUI anew; then drag one of its workflows/*.json onto the canvas.")
