"""`refnet doctor`: what is installed, what this machine has, and whether it draws."""

import json
import os
import platform
import re
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, metadata, requires
from importlib.metadata import version as version_of
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer
from rich.console import Console

from referencenet.cli.console import tell
from referencenet.later import later
from referencenet.media.files import check_place, written_whole
from referencenet.preprocess.model_files import SUMS, are_fetched, default_folder
from referencenet.version import __version__

if TYPE_CHECKING:
    import numpy as np
    import torch
    from huggingface_hub import constants

    import referencenet.builtin.load as builtin
    import referencenet.paperdoll.render as render
    from referencenet.cli import quiet as hushing
    from referencenet.methods import reference_only
    from referencenet.paperdoll import scene
else:
    np, torch, constants = later("numpy", "torch", "huggingface_hub.constants")
    builtin, hushing, reference_only, render, scene = later(
        "referencenet.builtin.load", "referencenet.cli.quiet", "referencenet.methods.reference_only",
        "referencenet.paperdoll.render", "referencenet.paperdoll.scene",
    )  # fmt: skip

app = typer.Typer(add_completion=False)

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pillow", "av")
STEPS = 4
"""Of the self-test's pictures."""


@app.command()
def doctor(
    test: Annotated[bool, typer.Option("--test/--no-test", help="Draw two small pictures: ten seconds.")] = True,
    models: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", show_default="REFNET_MODELS, or the user's cache",
                     help="Where fetched networks lie."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", show_default=False, help="Also write the findings there.")
    ] = None,
) -> None:  # fmt: skip
    """Say what is installed and found here, and draw two small pictures; for bug reports, and when something fails.

    Exits with 1 if the self-test fails. Try: `refnet doctor`
    """
    if json_file is not None:
        check_place(json_file)
    sections: dict[str, Callable[[], dict[str, str]]] = {
        "versions": versions, "extras": extras, "devices": devices, "memory": memory, "models": lambda: found(models),
    }  # fmt: skip
    findings = {name: look() for name, look in sections.items()}
    if test:
        tell("drawing two small pictures with the built-in model")
        findings["self-test"] = self_test()
    console = Console(highlight=False, soft_wrap=True)  # paths whole, to be copied
    for name, rows in findings.items():
        console.print(f"[bold]{name}[/]")
        for what, value in rows.items():
            console.print(f"  {what:<14}{value}", markup=False)
    if json_file is not None:
        with written_whole(json_file) as file:
            file.write_text(json.dumps(findings, indent=2) + "\n", encoding="utf-8")
    if test and findings["self-test"]["result"] != "passed":
        raise typer.Exit(1)


def versions() -> dict[str, str]:
    """Package to its version; the system and Python first."""
    own = {"system": platform.platform(), "python": platform.python_version(), "referencenet": __version__}
    return own | {name: _version(name) for name in PACKAGES}


def extras() -> dict[str, str]:
    """Extra to what it has, or what is missing and the command that installs it."""
    wanted: dict[str, list[str]] = {name: [] for name in metadata("referencenet").get_all("Provides-Extra") or []}
    for line in requires("referencenet") or []:
        if (extra := re.search(r"extra == ['\"]([\w-]+)['\"]", line)) is not None:
            package = re.match(r"[\w.-]+", line)
            wanted[extra[1]].append(package[0] if package else line)
    found: dict[str, str] = {}
    for extra, packages in wanted.items():
        if extra == "dev":
            continue
        missing = [name for name in packages if _version(name) == "missing"]
        here = ", ".join(f"{name} {_version(name)}" for name in packages if name not in missing)
        how = f"missing: {', '.join(missing)} (pip install 'referencenet[{extra}]')" if missing else ""
        found[extra] = "; ".join(part for part in (here, how) if part)
    return found


def devices() -> dict[str, str]:
    """What can be computed on, as `--device` names it."""
    found = {"cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads used"}
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found[f"cuda:{index}"] = f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple's GPU, which shares the memory below"
    return found


def memory() -> dict[str, str]:
    """Free memory and free space, for the work and for the results."""
    ram, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    return {
        "memory": f"{ram.available / 2**30:.1f} of {ram.total / 2**30:.1f} GiB free",
        "disk": f"{disk.free / 2**30:.1f} GiB free in {Path.cwd()}",
    }


def found(folder: Path | None) -> dict[str, str]:
    """Models that lie here: the built-in one, the fetched networks, the hub's cache."""
    folder = folder or default_folder()
    size = sum(file.stat().st_size for file in builtin.WEIGHTS.rglob("*.safetensors")) / 1e6
    here = [name for name in SUMS if (folder / name).is_file()]
    fetched = f"{folder}: all {len(SUMS)}"
    if not are_fetched(folder):
        fetched = f"{folder}: {len(here)} of {len(SUMS)} whole; run `refnet models fetch`"
    cache = Path(constants.HF_HUB_CACHE)
    repositories = sorted(path.name.removeprefix("models--").replace("--", "/") for path in cache.glob("models--*"))
    return {
        "built-in": f"{size:.1f} MB in {builtin.WEIGHTS}"
        if size
        else f"missing in {builtin.WEIGHTS}; install the package again",
        "MediaPipe": fetched,
        "hub cache": f"{cache}: {', '.join(repositories) or 'empty'}",
    }


def self_test() -> dict[str, str]:
    """Draw with and without a reference, and compare with what must hold on every machine."""
    begun = perf_counter()
    try:
        result = _drawn()
    except Exception as error:  # whatever it is, it is the finding
        result = f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
    return {"result": result, "seconds": f"{perf_counter() - begun:.1f}"}


def _drawn() -> str:
    hushing.quiet()
    pipe: Any = builtin.load("base")
    pipe.set_progress_bar_config(disable=True)
    hero = render.render(scene.Scene.from_seeds(0, 0))

    def draw() -> "np.ndarray":
        generator = torch.Generator().manual_seed(0)
        settings = {"num_inference_steps": STEPS, "guidance_scale": builtin.GUIDANCE, "generator": generator}
        return pipe("full body", output_type="np", **settings).images[0]

    plain = draw()
    with reference_only.reference(pipe, reference_only.Reference(hero, strength=0.0)):
        off = draw()
    with reference_only.reference(pipe, hero):
        linked = draw()
    if not np.isfinite(linked).all():
        return "failed: the picture with a reference holds NaN"
    if not np.array_equal(plain, off):
        return "failed: a reference of strength 0 changes the picture"
    if np.array_equal(plain, linked):
        return "failed: a reference does not change the picture"
    return "passed"


def _version(package: str) -> str:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return "missing"
