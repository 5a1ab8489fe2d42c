"""`refnet ui`: the web page."""

import importlib
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from referencenet.cli.console import say, tell
from referencenet.cli.options import Device, Dtype, Offload, VaeTiling
from referencenet.cli.settings import pairs
from referencenet.media.files import check_place

app = typer.Typer(add_completion=False)

LIMITS = "Limits"


@app.command()
def ui(
    models: Annotated[
        list[str] | None,
        typer.Option("--models", "-m", metavar="FOLDER|FILE|HUB_ID", help="What the page offers beside the built-in "
                     "model: a folder of models, a model, a .safetensors file. May be repeated."),
    ] = None,
    controlnet: Annotated[
        list[str] | None,
        typer.Option("--controlnet", metavar="KIND=FOLDER|HUB_ID", help="A ControlNet that the tab Refer offers, such "
                     "as pose=my-net. May be repeated."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="FOLDER|HUB_ID", help="The base model, for what released files leave out.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where results go.")] = Path("refnet-ui"),
    host: Annotated[
        str, typer.Option(help="The address to listen at. Any but 127.0.0.1 lets other machines use this one.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, show_default="a free one from 7860", help="The port.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = None,
    vae_tiling: VaeTiling = False,
    max_megabytes: Annotated[int, typer.Option(min=1, rich_help_panel=LIMITS, help="Of a file.")] = 64,
    max_megapixels: Annotated[
        float, typer.Option(min=0.01, rich_help_panel=LIMITS, help="Of a picture, and of a result.")
    ] = 24.0,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, rich_help_panel=LIMITS, help="Of a film or a sound.")
    ] = 60.0,
    max_pictures: Annotated[int, typer.Option(min=1, rich_help_panel=LIMITS, help="Of one job.")] = 16,
    max_waiting: Annotated[int, typer.Option(min=1, rich_help_panel=LIMITS, help="Jobs in line.")] = 64,
) -> None:  # fmt: skip
    """Open a web page with a tab for each task.

    Try: `refnet ui`, or `refnet ui --models ~/models`. Ctrl-C closes it.
    """
    check_place(out, folder=True)
    controlnets = pairs(controlnet or [], "--controlnet")
    if find_spec("gradio") is None:
        raise ModuleNotFoundError("refnet ui needs gradio; install it by pip install 'referencenet[ui]'.")
    work: Any = importlib.import_module("referencenet.ui.serve")  # gradio, torch: only now
    offered = work.Models(
        models or [], base=base, device=device, dtype=dtype, offload=offload, vae_tiling=vae_tiling,
        controlnets=controlnets,
    )  # fmt: skip
    limits = work.Limits(
        megabytes=max_megabytes, megapixels=max_megapixels, seconds=max_seconds, pictures=max_pictures,
        waiting=max_waiting,
    )  # fmt: skip
    with work.closing_signals() as closing, work.served(offered, out, limits, host=host, port=port) as address:
        say(f"{address} (results go to {out}; Ctrl-C closes the page)")
        if browser:
            webbrowser.open(address)
        closing.wait()
        tell("closing: jobs that are drawn or wait are cancelled.")
