"""`refnet generate`: pictures that refer to pictures, a contact sheet, and every setting to make them again.

What was typed is checked here; `generate_run`, which loads models and draws, is imported behind that.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from referencenet.cli import styles
from referencenet.cli.console import note, say
from referencenet.cli.model_names import BUILTIN, check_model
from referencenet.cli.options import LARGEST_SEED, MOST_SCALE, MOST_STEPS, Device, Dtype, FitTo, Offload, VaeTiling
from referencenet.cli.settings import LinkChoice, Settings, StyleFrom, pairs, parse_size, read_document
from referencenet.later import later
from referencenet.media.files import check_place
from referencenet.media.images import read_image, read_mask

if TYPE_CHECKING:
    from referencenet.cli import generate_run
else:
    (generate_run,) = later("referencenet.cli.generate_run")

app = typer.Typer(add_completion=False)


def _use_settings(ctx: typer.Context, file: Path | None) -> Path | None:
    """Take options that were not typed from an earlier run's settings.json."""
    if file is not None:
        options, changed = read_document(file)
        for name in changed:
            note(f"{name} is missing or no longer what it was; the pictures will differ.")
        ctx.default_map = {**(ctx.default_map or {}), **options}
    return file


@app.command()
def generate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures, sheet.png and settings.json.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the pictures show.")],
    reference: Annotated[
        list[str] | None,
        typer.Option("--reference", "-r", metavar="PICTURE", help="Refer to this. May be given again."),
    ] = None,
    style: styles.StylePicture = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="builtin|FOLDER|HUB_ID", help="A Stable Diffusion model.")
    ] = "builtin",
    link: Annotated[
        LinkChoice,
        typer.Option("--link", "-l", help="How references are read; referencenet is trained, aligned is for styles."),
    ] = "attention",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many pictures.")] = 1,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=LARGEST_SEED, show_default="random", help="Of the first picture; counts up."),
    ] = None,
    strength: Annotated[float, typer.Option(min=0, max=1, help="0 is no reference, 1 as published.")] = 1.0,
    style_fidelity: Annotated[
        float | None,
        typer.Option(min=0, max=1, show_default="0.5, with --style 0",
                     help="0: the prompt matters more; 1: the reference does."),
    ] = None,
    style_prompt: styles.StylePrompt = "",
    style_from: Annotated[
        StyleFrom, typer.Option(help="Invert the style's picture, or noise it.", rich_help_panel=styles.PANEL)
    ] = "inverted",
    style_weight: styles.StyleWeight = 1.0,
    share_attention: styles.ShareAttention = True,
    adain_queries: styles.AdainQueries = True,
    adain_keys: styles.AdainKeys = True,
    group_norm: styles.GroupNorm = False,
    mask: Annotated[
        list[str] | None,
        typer.Option(metavar="PICTURE", help="White may be read. The first is the first reference's, and so on."),
    ] = None,
    result_mask: Annotated[
        str | None, typer.Option(metavar="PICTURE", help="White: here the result may read references.")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=PICTURE", help="A condition, as in pose=skeleton.png. Needs a ControlNet, or "
                     "--link referencenet, which follows pose."),
    ] = None,
    controlnet: Annotated[
        list[str] | None, typer.Option(metavar="KIND=FOLDER|HUB_ID", help="The ControlNet for a kind of --control.")
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What the pictures shall not show.")] = "",
    steps: Annotated[
        int | None, typer.Option(min=1, max=MOST_STEPS, show_default="the model's", help="Denoising steps.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, max=MOST_SCALE, show_default="the model's", help="Guidance scale; 1 is none.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="N|WIDTHxHEIGHT", show_default="the model's", help="In pixels.")
    ] = None,
    fit: FitTo = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = None,
    vae_tiling: VaeTiling = False,
    settings: Annotated[  # noqa: ARG001 - acts through its callback
        Path | None,
        typer.Option(
            "--settings", metavar="settings.json", callback=_use_settings, is_eager=True, exists=True, dir_okay=False,
            help="Take every option that is not typed from an earlier run: draws the same again.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Draw pictures that refer to pictures.

    Try: `refnet generate -r hero.png -p "full body, waving, facing front, smiling, plain blue background" --out out`
    """
    if style is not None and reference:
        raise ValueError("--style and --reference were both given; the style's picture is the only one that is read.")
    if style is None and not reference:
        raise click.UsageError("Missing option '--reference' / '-r', or '--style'.")
    chosen = Settings(
        prompt=prompt,
        reference=tuple(_absolute(reference or [style or ""])),
        mask=tuple(_absolute(mask or [])),
        result_mask=next(iter(_absolute([result_mask])), None) if result_mask else None,
        negative_prompt=negative_prompt,
        model=model,
        link=link if style is None else "aligned",
        style_fidelity=style_fidelity,
        strength=strength,
        control=tuple(f"{kind}={_absolute([path])[0]}" for kind, path in pairs(control or [], "--control").items()),
        controlnet=tuple(controlnet or []),
        count=count,
        seed=seed,
        steps=steps,
        guidance=guidance,
        size=size,
        fit=fit,
        device=device,
        dtype=dtype,
        offload=offload,
        vae_tiling=vae_tiling,
        style_prompt=style_prompt,
        style_from=style_from,
        style_weight=style_weight,
        share_attention=share_attention,
        adain_queries=adain_queries,
        adain_keys=adain_keys,
        group_norm=group_norm,
    )
    check_generate(chosen, out)
    sheet = generate_run.run_generate(chosen, out)
    say(f"{count} {'picture' if count == 1 else 'pictures'}, side by side in {sheet}")


def check_generate(settings: Settings, out: Path) -> None:
    """Check what can be checked without a model: places, sizes, pictures, and options that exclude each other.

    Raises:
        FileNotFoundError: If a picture is missing.
        ValueError: If something else is wrong.
    """
    check_place(out, folder=True)
    if settings.size is not None:
        parse_size(settings.size, multiple=8)
    if len(settings.mask) > len(settings.reference):
        raise ValueError(f"--mask was given {len(settings.mask)} times for {len(settings.reference)} references.")
    for path in settings.reference:
        read_image(path)
    for path in (*settings.mask, *([settings.result_mask] if settings.result_mask else [])):
        read_mask(path)
    styles.check_style(settings)
    _check_controls(settings)
    if settings.model != BUILTIN:
        check_model("--model", settings.model, "model_index.json")
    for kind, net in pairs(settings.controlnet, "--controlnet").items():
        check_model(f"--controlnet {kind}", net, "config.json")


def _check_controls(settings: Settings) -> None:
    """Check that every condition has something that follows it, and that its picture can be read."""
    pictures, nets = pairs(settings.control, "--control"), pairs(settings.controlnet, "--controlnet")
    if settings.link == "referencenet":
        _check_referencenet(settings, pictures, nets)
        nets = {"pose": settings.model}
    for kind in pictures.keys() - nets.keys():
        raise ValueError(f"Nothing follows --control {kind}; add --controlnet {kind}=FOLDER.")
    for kind in nets.keys() - pictures.keys():
        raise ValueError(f"--controlnet {kind} has no picture to follow; add --control {kind}=PICTURE.")
    for path in pictures.values():
        read_image(path)


def _check_referencenet(settings: Settings, pictures: dict[str, str], nets: dict[str, str]) -> None:
    """Check that the trained ReferenceNet is asked for what it can do."""
    if pictures.keys() != {"pose"} or nets:
        raise ValueError("--link referencenet follows one skeleton: give --control pose=PICTURE, and no other control.")
    published = Settings(prompt="", reference=())
    unread = [
        name
        for name in ("mask", "result_mask", "negative_prompt", "strength", "style_fidelity")
        if getattr(settings, name) != getattr(published, name)
    ]
    if unread or len(settings.reference) > 1:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in unread) or "more than one --reference"
        raise ValueError(f"--link referencenet does not take {options}; use --link attention for that.")


def _absolute(paths: list[str]) -> list[str]:
    """Make paths hold wherever the settings are read again."""
    return [str(Path(path).expanduser().absolute()) for path in paths]
