"""`refnet convert SYSTEM FILES... --out DIR`: released files to an ordinary pipeline folder."""

import shutil
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from referencenet.cli.checks import check_given
from referencenet.cli.console import say
from referencenet.cli.options import only, refuse_others
from referencenet.later import later
from referencenet.media.files import check_place, locked
from referencenet.methods.registry import named, names_of
from referencenet.telling import did_you_mean

if TYPE_CHECKING:
    from referencenet.cli import quiet as hushing
    from referencenet.methods import systems
    from referencenet.networks import neighbourhood
else:
    hushing, systems, neighbourhood = later(
        "referencenet.cli.quiet", "referencenet.methods.systems", "referencenet.networks.neighbourhood"
    )

EMO = only("emo")
EDGES = "0,0.25,0.5,1,1.5,2,3,4.5,6,9"
"""Of the paper's buckets of head speed, which a test compares."""

SHARD = "2GB"  # written at once, so that memory stays below that of the largest file

app = typer.Typer(add_completion=False)


@app.command()
def convert(
    ctx: typer.Context,
    system: Annotated[str, typer.Argument(help=f"One of {', '.join(names_of())}.")],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER|FILE...", help="The folder with the released files, or the files one by one."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write, which from_pretrained reads.")],
    base: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|HUB_ID", help="The base model, if its configuration is not the usual one."),
    ] = None,
    vae: Annotated[Path | None, typer.Option(help="The autoencoder's folder, if it is not among the files.")] = None,
    image_encoder: Annotated[Path | None, typer.Option(help="CLIP's folder, if it is not among the files.")] = None,
    reference_feature: Annotated[
        Literal["attn1_output", "norm1", "attn1_residual"] | None,
        typer.Option(rich_help_panel=EMO, show_default="attn1_output", help="What the writer leaves for the denoiser."),
    ] = None,
    face_locator_target: Annotated[
        Literal["latent", "conv_in"] | None,
        typer.Option(rich_help_panel=EMO, show_default="latent", help="What the face locator's features are added to."),
    ] = None,
    speed_edges: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", rich_help_panel=EMO, show_default=EDGES,
                     help="Of the buckets of head speed, in degrees a frame."),
    ] = None,
    zero_snr: Annotated[
        bool,
        typer.Option("--zero-snr", rich_help_panel=EMO, help="Noise ends without signal, and velocity is predicted."),
    ] = False,
) -> None:  # fmt: skip
    """Convert the released files of a published system, strictly: every key has its place, or an error names it.

    Try: `refnet convert animate_anyone pretrained_weights/ --out animate-anyone`
    """
    system = check_convert(system, out)
    refuse_others(ctx, system)
    check_given(ctx)
    edges = None if speed_edges is None else read_numbers(speed_edges)
    centres, radii = (None, None) if edges is None else neighbourhood.buckets(edges)
    further = {
        "vae": vae, "image_encoder": image_encoder, "reference_feature": reference_feature,
        "face_locator_target": face_locator_target, "centres": centres, "radii": radii, "zero_snr": zero_snr or None,
    }  # fmt: skip
    path = run_convert(
        system, files, out, base=base, **{name: value for name, value in further.items() if value is not None}
    )
    say(f"converted: {path}")


def read_numbers(typed: str) -> list[float]:
    """Numbers with commas between them.

    Raises:
        ValueError: If something else is among them.
    """
    try:
        return [float(number) for number in typed.split(",")]
    except ValueError as error:
        raise ValueError(f"--speed-edges is {typed!r}; expected rising numbers with commas between, as 0,1,3,9.") from (
            error
        )


def check_convert(system: str, out: Path) -> str:
    """Make sure that the system is one, and that the folder can be written.

    Returns:
        The system's name as the registry has it.

    Raises:
        ValueError: If the system is unknown, or `out` is taken.
    """
    known = names_of()
    found = named(system, known)
    if found is None:
        raise ValueError(
            f"there is no published system {system!r}; there are {', '.join(known)}.{did_you_mean(system, known)}"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and not empty; give another --out.")
    check_place(out, folder=True)
    return found


def run_convert(system: str, files: Sequence[Path], out: Path, **options: Any) -> Path:
    """Convert; the folder appears whole or not at all.

    Args:
        system: Name of a system or of one of its published sets.
        files: A folder, or files.
        out: Folder to write; must not hold anything yet.
        options: Further arguments of the pipeline's `from_published`.

    Returns:
        The folder.

    Raises:
        ValueError: If the system is unknown, takes no such option, or `out` is taken.
    """
    system = check_convert(system, out)
    hushing.quiet()
    known = systems.pipelines()
    for name in set(options) - set(_options(known[system])):
        raise ValueError(
            f"{system} takes no --{name.replace('_', '-')}: its release or its --base brings it; leave the option out."
        )
    given = files[0] if len(files) == 1 and files[0].is_dir() else list(files)
    pipe = known[system].from_published(given, **options)
    partial = out.with_name(f".{out.name}.partial")
    with locked(out):
        return _saved(pipe, partial, out)


def _saved(pipe: Any, partial: Path, out: Path) -> Path:
    """Write a pipeline's folder whole."""
    shutil.rmtree(partial, ignore_errors=True)
    try:
        pipe.save_pretrained(partial, max_shard_size=SHARD)
        if out.exists():
            out.rmdir()
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _options(pipeline: Any) -> set[str]:
    """What a pipeline's `from_published` takes: its own arguments, and parts that the released files do not fill."""
    named = set(signature(pipeline.from_published).parameters)
    return (named | set(pipeline.published.further)) - {"parts"}
