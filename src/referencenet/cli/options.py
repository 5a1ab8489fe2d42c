"""Options that several commands have in common."""

from pathlib import Path
from typing import Annotated

import typer

from referencenet.cli.settings import DtypeChoice

Checkpoint = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The released files, or what `refnet convert` made of them.")
]
RandomTiny = Annotated[
    bool, typer.Option("--random-tiny", help="Tiny random weights: tries the installation, draws nothing.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[DtypeChoice, typer.Option(help="auto is half precision on CUDA.")]
